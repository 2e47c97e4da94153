#include <doctest/doctest.h>
#include <sys/stat.h>

#include "choose.hpp"
#include "eightfold/error.hpp"
#include "fixtures.hpp"

using namespace eightfold;
using detail::BackendEntry;

namespace {

BackendEntry entry(const char* name, Format format) {
  return {name, format, [] { return std::string("1"); }, [] { return std::string(); }, nullptr};
}

const std::vector<BackendEntry> kEntries = {entry("tensorrt", Format::engine),
                                            entry("onnxruntime", Format::onnx)};

Artifact artifact(const std::string& id, const std::string& variant, Precision precision, int batch,
                  Format format = Format::onnx, const std::string& target = "any") {
  Artifact made;
  made.id = id;
  made.variant = variant;
  made.precision = precision;
  made.batch = batch;
  made.format = format;
  made.target = target;
  return made;
}

Manifest manifest_of(std::vector<Artifact> artifacts) {
  Manifest manifest;
  manifest.artifacts = std::move(artifacts);
  return manifest;
}

const Manifest kBundle = manifest_of(
    {artifact("base", "baseline", Precision::fp32, 1), artifact("fp32-b4", "pruned", Precision::fp32, 4),
     artifact("fp32-b1", "pruned", Precision::fp32, 1), artifact("int8-b1", "pruned", Precision::int8, 1)});

constexpr const char* kTable = R"({"kind": "latency table", "schema": 1,
  "device": {"cpu": {"model": "C", "cores": 2, "quota_cores": null}, "board": null, "gpus": [{"name": "G"}]},
  "rows": [{"artifact": "int8-b1", "backend": "onnxruntime", "batch": 1, "timing": {"mean_ms": 9},
            "start_p50_ms": [20, 3.5, 2.5, 1]},
           {"artifact": "fp32-b1", "backend": "onnxruntime-cuda", "batch": 1, "timing": {"mean_ms": 1}},
           {"artifact": "fp32-b4", "backend": "onnxruntime", "batch": 4, "timing": {"mean_ms": 8}},
           {"artifact": "base", "backend": "onnxruntime", "batch": 1, "timing": {"mean_ms": 0.5}}]})";

}  // namespace

TEST_CASE("by rule: narrow numbers, and a baseline only when asked for") {
  detail::Choice choice = detail::choose(kBundle, kEntries, {});
  CHECK(choice.artifacts[0].id == "int8-b1");
  CHECK(choice.reason == "by rule before fp32 on onnxruntime; none was measured on this device");
  EngineOptions options;
  options.variant = "baseline";
  choice = detail::choose(kBundle, kEntries, options);
  CHECK(choice.artifacts[0].id == "base");
  CHECK(choice.reason == "the only one that fits");
}

TEST_CASE("by table: the fastest at the smallest batch that was measured") {
  const detail::LatencyTable table = detail::latency_from_json(kTable, "t");
  CHECK(table.machine.gpus == std::vector<std::string>{"G"});
  const detail::Choice choice = detail::choose(kBundle, kEntries, {}, &table);
  CHECK(choice.artifacts.size() == 2);
  CHECK(choice.artifacts[0].id == "fp32-b1");
  CHECK(choice.reason == "the fastest in the bundle's table for this device, 2.00 ms per image");
  EngineOptions options;
  options.precision = "int8";
  CHECK(detail::choose(kBundle, kEntries, options, &table).reason.find("3.00 ms") != std::string::npos);
  options = {};
  options.provider = "cuda";
  CHECK(detail::choose(kBundle, kEntries, options, &table).reason.find("1.00 ms") != std::string::npos);
}

namespace {

Artifact sized(const std::string& id, Precision precision, std::int64_t height, std::int64_t width) {
  Artifact made = artifact(id, "pruned", precision, 1);
  made.inputs = {{"images", DataType::float32, {1, 3, height, width}}};
  return made;
}

// Images of 32x48 by default.
Manifest sized_manifest(std::vector<Artifact> artifacts) {
  Manifest manifest = manifest_of(std::move(artifacts));
  manifest.preprocess.height = 32;
  manifest.preprocess.width = 48;
  return manifest;
}

const Manifest kSizes = sized_manifest(
    {sized("small", Precision::int8, 16, 24), sized("fp32", Precision::fp32, 32, 48),
     sized("int8", Precision::int8, 32, 48), artifact("unsized", "pruned", Precision::int8, 1)});

EngineOptions at(int height, int width) {
  EngineOptions options;
  options.height = height;
  options.width = width;
  return options;
}

}  // namespace

TEST_CASE("the size of the manifest's preprocessing comes before table and rule") {
  const detail::Choice choice = detail::choose(kSizes, kEntries, {});
  CHECK(choice.artifacts.size() == 1);
  CHECK(choice.artifacts[0].id == "int8");
  CHECK(
      detail::described(choice, kSizes) ==
      "pruned int8 on onnxruntime at 32x48 (batch 1): by rule before fp32 on onnxruntime; none was measured "
      "on this device");
  const detail::LatencyTable table = {{}, {{"small", "onnxruntime", 1}, {"fp32", "onnxruntime", 9}}};
  CHECK(detail::choose(kSizes, kEntries, {}, &table).artifacts[0].id == "fp32");
}

TEST_CASE("where nothing has that size, all compete in the manifest's order") {
  Manifest manifest = kSizes;
  manifest.preprocess.width = 50;
  detail::Choice choice = detail::choose(manifest, kEntries, {});
  CHECK(choice.artifacts[0].id == "small");
  CHECK(
      choice.reason ==
      "by rule before fp32 on onnxruntime at 32x48, int8 on onnxruntime at 32x48, int8 on onnxruntime; none "
      "was measured on this device");
  EngineOptions options;
  options.precision = "fp32";  // at the other size only
  manifest.preprocess = kSizes.preprocess;
  manifest.preprocess.height = 16;
  manifest.preprocess.width = 24;
  choice = detail::choose(manifest, kEntries, options);
  CHECK(choice.artifacts[0].id == "fp32");
}

TEST_CASE("a size that was asked for is the only one that counts") {
  CHECK(detail::choose(kSizes, kEntries, at(16, 24)).artifacts[0].id == "small");
  CHECK_THROWS_WITH_AS(detail::choose(kSizes, kEntries, at(24, 16)),
                       "nothing in this bundle is auto auto on auto at 24x16; allowed: pruned fp32 on "
                       "onnxruntime at 32x48, batch 1; pruned int8 on onnxruntime at 16x24, batch 1; pruned "
                       "int8 on onnxruntime at 32x48, batch 1; pruned int8 on onnxruntime, batch 1",
                       Error);
  const Manifest one = sized_manifest({sized("fp32", Precision::fp32, 32, 48)});
  CHECK_THROWS_WITH_AS(detail::choose(one, kEntries, at(24, 16)),
                       doctest::Contains("allowed: pruned fp32 on onnxruntime at 32x48, batch 1"), Error);
  CHECK(detail::described(detail::choose(one, kEntries, {}), one) ==
        "pruned fp32 on onnxruntime (batch 1): the only one that fits");
}

TEST_CASE("the size of an artifact is that of its only input, an image") {
  using Shape = std::vector<std::int64_t>;
  const auto size = [](const Shape& shape, Layout layout) {
    Artifact made;
    made.inputs = {{"images", DataType::float32, shape}};
    return size_of(made, layout);
  };
  CHECK(size({2, 3, 4, 5}, Layout::nchw) == Size{4, 5});
  CHECK(size({2, 4, 5, 3}, Layout::nhwc) == Size{4, 5});
  for (const Shape& shape :
       {Shape{}, Shape{2, 3}, Shape{2, 3, 0, 5}, Shape{2, 3, 4, 65537}, Shape{2, 3, 4, 5, 6}})
    CHECK_FALSE(size(shape, Layout::nchw));
  Artifact two = sized("", Precision::fp32, 8, 8);
  two.inputs.push_back(two.inputs[0]);
  CHECK_FALSE(size_of(two, Layout::nchw));
}

TEST_CASE("artifacts run where they were made for") {
  const auto runs = [](const std::string& target, Format format, const std::string& provider) {
    const BackendEntry& backend = format == Format::engine ? kEntries[0] : kEntries[1];
    return detail::runs_here(artifact("", "", Precision::int8, 1, format, target), backend, provider);
  };
  CHECK(runs("tensorrt:10.3", Format::engine, "cpu"));
  CHECK(runs("tensorrt-dla", Format::engine, "cpu"));
  CHECK_FALSE(runs("rtx:sm86", Format::engine, "cpu"));
  CHECK(runs("any", Format::onnx, "cuda"));
  CHECK(runs("tensorrt", Format::onnx, "tensorrt"));
  CHECK_FALSE(runs("tensorrt", Format::onnx, "cpu"));
  CHECK_FALSE(runs("cpu-x86", Format::onnx, "cuda"));
  CHECK_FALSE(runs("openvino", Format::onnx, "cpu"));
}

TEST_CASE("a table that is none is named by its first fault") {
  const auto fault = [](const std::string& text) {
    try {
      detail::latency_from_json(text, "t");
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::bundle);
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(fault("{").find("t is not JSON") == 0);
  CHECK(fault(R"({"kind": "ranges"})").find("kind is 'ranges'") != std::string::npos);
  std::string text = kTable;
  text.replace(text.find("\"batch\": 4"), 10, "\"batch\": 0");
  CHECK(fault(text).find("rows.2.batch is 0") != std::string::npos);
}

namespace {

// What a kernel says on a board with two kinds of cores, of which a container may use five for two and a
// half.
void write_board(const fixtures::Folder& root) {
  for (const char* folder : {"proc", "proc/self", "proc/device-tree", "sys", "sys/fs", "sys/fs/cgroup"}) {
    ::mkdir((root / folder).c_str(), 0777);
  }
  std::string info;
  for (const char* part : {"0x003", "0x003", "0xd07"}) {
    info += std::string("CPU implementer\t: ") + (part[2] == '0' ? "0x4e" : "0x41") +
            "\nCPU part\t: " + part + "\n";
  }
  fixtures::write(root / "proc/cpuinfo", fixtures::bytes_of(info));
  fixtures::write(root / "proc/self/status", fixtures::bytes_of("Name:\tx\nCpus_allowed_list:\t0-3,6\n"));
  fixtures::write(root / "proc/device-tree/model", fixtures::bytes_of(std::string("Some Board\0", 11)));
  fixtures::write(root / "sys/fs/cgroup/cpu.max", fixtures::bytes_of("250000 100000\n"));
}

}  // namespace

TEST_CASE("a machine is read as Python reads it") {
  const fixtures::Folder root;
  CHECK(describe_machine(root.path()).cpu == "unknown processor");
  write_board(root);
  Machine board = describe_machine(root.path());
  CHECK(board.cpu == "2 x Denver 2 + 1 x Cortex-A57");
  CHECK(board.cores == 5);
  CHECK(board.quota_cores == 2.5);
  CHECK(board.board == "Some Board");
  Machine other = board;
  other.gpus = {"Orin (nvgpu)"};  // shown on some systems only
  CHECK(alike(board, other));
  other.board = board.board = "";
  CHECK_FALSE(alike(board, other));
}
