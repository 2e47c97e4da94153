#include <doctest/doctest.h>

#include <cstdlib>

#include "eightfold/error.hpp"
#include "engine_fit.hpp"
#include "fixtures.hpp"

using namespace eightfold;

namespace {

Artifact engine_for(const std::string& version, const std::string& capability) {
  Artifact engine;
  engine.format = Format::engine;
  engine.variant = "pruned";
  engine.precision = Precision::fp16;
  engine.batch = 4;
  engine.path = "engines/b4.engine";
  engine.inputs = {{"images", DataType::float32, {4, 3, 8, 8}}};
  engine.requirements = {{"tensorrt", version}, {"compute_capability", capability}};
  return engine;
}

}  // namespace

TEST_CASE("an engine of another version or GPU is refused with the command that builds it here") {
  const fixtures::Folder folder;
  fixtures::write_files(folder / "bundle", fixtures::bundle_files({1, 4}, {{16, 24}, fixtures::kUsual}));
  const Bundle bundle = Bundle::open(folder / "bundle");
  const detail::EngineHost here = {"10.3.0", "8.7"};
  const auto message = [&](const Artifact& engine) {
    try {
      detail::check_engine_fits(bundle, engine, here);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::backend);
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(message(engine_for("10.3.0", "8.7")).empty());
  CHECK(message(engine_for("10.3.0.26", "8.7")).empty());  // builds of one release
  const std::string command =
      "eightfold-build " + (folder / "bundle") + "/onnx/b4.onnx -o b4.engine --precision fp16";
  CHECK(message(engine_for("10.7.0", "8.7")) ==
        "engine engines/b4.engine was built for tensorrt 10.7.0, and here is 10.3.0; allowed: engines built "
        "by this very version for this GPU, or to run on others as well; build it here: " +
            command);
  CHECK(message(engine_for("10.3.0", "7.2")).find("compute_capability 7.2, and here is 8.7") !=
        std::string::npos);
  CHECK(message(engine_for("8.6.1", "8.7")).find("build it here") != std::string::npos);
  CHECK(message(engine_for(">=8.6.1 <11", ">=8.0")).empty());
  CHECK(message(engine_for("10.3.0", "8.6,8.7")).empty());
  CHECK(message(engine_for(">=10.7.0 <12", "8.7")).find("tensorrt >=10.7.0 <12, and here is 10.3.0") !=
        std::string::npos);
  Artifact rtx = engine_for("", "8.7");
  rtx.requirements = {{"tensorrt_rtx", "1.7.1.116"}, {"compute_capability", "8.7"}};
  CHECK(message(rtx).find("tensorrt_rtx 1.7.1.116, and here is TensorRT 10.3.0") != std::string::npos);
  Artifact larger = engine_for("8.2.1", "8.7");
  larger.inputs[0].shape = {4, 3, 16, 24};
  CHECK(message(larger).find("/onnx/b4-16x24.onnx -o b4.engine") != std::string::npos);
  Artifact other = engine_for("8.2.1", "8.7");
  other.variant = "baseline";  // the bundle has no graph of it
  CHECK(message(other).find("build it here: eightfold-build MODEL.onnx -o b4.engine") != std::string::npos);
}

TEST_CASE("requirements are read as Python reads them") {
  const std::string nine = "123456789";
  const struct {
    std::string seen;
    std::string requirement;
    bool expected;
  } cases[] = {
      {"10.3.0", "10.3.0", true},       {"10.3.0", "10.3.0.26", true},
      {"8.5.2.2", "8.5.2", true},       {"10.3.0", "10.30.0", false},
      {"10.0.0b6", "10.0.0", true},     {"8.6", "8.6,8.9", true},
      {"8.7", "8.6,8.9", false},        {"12.0", ">=8.0", true},
      {"7.5", ">=8.0", false},          {"10.3", "", false},
      {"10.3", "10.3,", true},          {"10.3", ",", false},
      {"10.3", "any", false},           {"", "10.3", false},
      {"10.3", ">10.0", false},         {"9.3.0", ">=8.6.1 <11", true},
      {"11.0.0", ">=8.6.1 <11", false}, {"8.6.0", ">=8.6.1 <11", false},
      {nine + nine, nine, true},
  };
  for (const auto& each : cases) {
    CAPTURE(each.seen);
    CAPTURE(each.requirement);
    CHECK(detail::meets(each.seen, each.requirement) == each.expected);
  }
}

TEST_CASE("an engine that brings machine code along is loaded only where that is allowed") {
  const Artifact engine = engine_for(">=8.6.1 <11", "8.7");
  CHECK(detail::brings_host_code(engine));
  CHECK_FALSE(detail::brings_host_code(engine_for("8.6.1", ">=8.0")));
  ::unsetenv("EIGHTFOLD_TRUST_ENGINE_CODE");
  CHECK_THROWS_WITH_AS(detail::require_trusted(engine),
                       doctest::Contains("set EIGHTFOLD_TRUST_ENGINE_CODE=1, or build it without"), Error);
  ::setenv("EIGHTFOLD_TRUST_ENGINE_CODE", "1", 1);
  CHECK_NOTHROW(detail::require_trusted(engine));
  ::unsetenv("EIGHTFOLD_TRUST_ENGINE_CODE");
}

TEST_CASE("each version and GPU has a timing cache of its own, named as Python names it") {
  CHECK(detail::timing_cache_path("a/times.cache", "10.3.0", "Orin Nano") ==
        "a/times.tensorrt-10.3.0-Orin-Nano.cache");
  CHECK(detail::timing_cache_path("times", "8.2.1", "Quadro T2000/PCIe") ==
        "times.tensorrt-8.2.1-Quadro-T2000-PCIe");
  CHECK(detail::timing_cache_path("a.b/times", "8.2.1", "") == "a.b/times.tensorrt-8.2.1");
}
