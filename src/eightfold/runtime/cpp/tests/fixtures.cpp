#include "fixtures.hpp"

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <stdexcept>

#include "sha256.hpp"

namespace fixtures {
namespace {

// Protocol buffers: a field is its number and wire type, then a varint (0), or a length and bytes (2).
std::string varint(std::uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7U) out += static_cast<char>(value | 0x80U);
  return out + static_cast<char>(value);
}
std::string number(int field, std::uint64_t value) {
  return varint(static_cast<unsigned>(field) << 3U) + varint(value);
}
std::string text(int field, const std::string& value) {
  return varint(static_cast<unsigned>(field) << 3U | 2U) + varint(value.size()) + value;
}

// onnx.proto: ValueInfoProto.
std::string tensor(const std::string& name, const std::vector<int>& shape) {
  std::string dims;
  for (const int side : shape) dims += text(1, number(1, static_cast<std::uint64_t>(side)));
  return text(1, name) + text(2, text(1, number(1, 1) + text(2, dims)));
}

std::string node(const std::string& input, const std::string& output, const std::string& type) {
  return text(1, input) + text(2, output) + text(4, type);
}

std::string entry(const Bytes& content) {
  return R"({"bytes": )" + std::to_string(content.size()) + R"(, "sha256": ")" +
         eightfold::detail::sha256_hex(content) + "\"}";
}

// "b1", "b1-16x24".
std::string name_of(int batch, eightfold::Size size) {
  return "b" + std::to_string(batch) + (size == kUsual ? "" : "-" + text_of(size));
}

std::string artifact(int batch, eightfold::Size size) {
  const std::string name = name_of(batch, size);
  const std::string number = std::to_string(batch);
  return R"({"id": "pruned-)" + name + R"(", "variant": "pruned", "format": "onnx", "precision": "fp32",
    "target": "any", "batch": )" +
         number + R"(, "path": "onnx/)" + name + R"(.onnx",
    "inputs": [{"name": "images", "dtype": "float32", "shape": [)" +
         number + ", 3, " + std::to_string(size.height) + ", " + std::to_string(size.width) + R"(]}],
    "outputs": [{"name": "logits", "dtype": "float32", "shape": [)" +
         number + R"(, 3]}]})";
}

std::string little_endian(std::uint64_t value, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += i < 8 ? static_cast<char>(value >> (8 * i) & 0xffU) : '\0';
  return out;
}

std::string end_of(std::uint64_t count, std::uint64_t bytes, std::uint64_t offset) {
  return little_endian(0x06054b50, 4) + little_endian(0, 4) + little_endian(count, 2) +
         little_endian(count, 2) + little_endian(bytes, 4) + little_endian(offset, 4) + little_endian(0, 2);
}

std::string large_end(std::uint64_t count, std::uint64_t bytes, std::uint64_t offset) {
  const std::string record = little_endian(0x06064b50, 4) + little_endian(44, 8) + little_endian(0, 12) +
                             little_endian(count, 8) + little_endian(count, 8) + little_endian(bytes, 8) +
                             little_endian(offset, 8);
  const std::string locator = little_endian(0x07064b50, 4) + little_endian(0, 4) +
                              little_endian(offset + bytes, 8) + little_endian(1, 4);
  return record + locator + end_of(0xffff, 0xffffffff, 0xffffffff);
}

}  // namespace

Folder::Folder() {
  path_ = "/tmp/eightfold-test-XXXXXX";
  if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("no temporary folder");
}

Folder::~Folder() {
  ::nftw(
      path_.c_str(), [](const char* path, const struct stat*, int, struct FTW*) { return ::remove(path); }, 8,
      FTW_DEPTH | FTW_PHYS);
}

Bytes bytes_of(const std::string& text) { return {text.begin(), text.end()}; }

Bytes mean_model(int batch, eightfold::Size size) {
  const std::string graph = text(1, node("images", "pooled", "GlobalAveragePool")) +
                            text(1, node("pooled", "logits", "Flatten")) + text(2, "means") +
                            text(11, tensor("images", {batch, 3, size.height, size.width})) +
                            text(12, tensor("logits", {batch, 3}));
  return bytes_of(number(1, 8) + text(7, graph) + text(8, number(2, 17)));
}

std::map<std::string, Bytes> bundle_files(const std::vector<int>& batches,
                                          const std::vector<eightfold::Size>& sizes) {
  std::map<std::string, Bytes> files;
  std::string artifacts;
  std::string entries;
  for (const eightfold::Size size : sizes) {
    for (const int batch : batches) {
      const std::string name = "onnx/" + name_of(batch, size) + ".onnx";
      files[name] = mean_model(batch, size);
      artifacts += (artifacts.empty() ? "" : ", ") + artifact(batch, size);
      entries += (entries.empty() ? "\"" : ", \"") + name + "\": " + entry(files[name]);
    }
  }
  files["manifest.json"] = bytes_of(R"({"kind": "bundle manifest", "schema": 1, "name": "means",
    "task": {"kind": "classify", "decode": "classify", "labels": ["red", "green", "blue"]},
    "preprocess": {"height": 8, "width": 8}, "artifacts": [)" +
                                    artifacts + R"(], "files": {)" + entries + "}}");
  reseal(files, [](std::string&) {});
  return files;
}

void reseal(std::map<std::string, Bytes>& files, const std::function<void(std::string&)>& edit) {
  std::string manifest(files["manifest.json"].begin(), files["manifest.json"].end());
  edit(manifest);
  files["manifest.json"] = bytes_of(manifest);
  files["manifest.sha256"] =
      bytes_of(eightfold::detail::sha256_hex(files["manifest.json"]) + "  manifest.json\n");
}

void write(const std::string& path, const Bytes& bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!file) throw std::runtime_error("cannot write " + path);
}

void write_files(const std::string& folder, const std::map<std::string, Bytes>& files) {
  ::mkdir(folder.c_str(), 0777);
  ::mkdir((folder + "/onnx").c_str(), 0777);
  for (const auto& [name, bytes] : files) write(folder + "/" + name, bytes);
}

Bytes zip_of(const std::map<std::string, Bytes>& files, bool large) {
  std::string archive;
  std::string directory;
  for (const auto& [name, bytes] : files) {
    const auto size = static_cast<std::uint32_t>(bytes.size());
    const std::string common = little_endian(20, 2) + little_endian(0, 2) + little_endian(0, 2) +
                               little_endian(0, 8) + little_endian(size, 4) + little_endian(size, 4) +
                               little_endian(static_cast<std::uint32_t>(name.size()), 2) +
                               little_endian(0, 2);
    directory += little_endian(0x02014b50, 4) + little_endian(20, 2) + common + little_endian(0, 6) +
                 little_endian(0, 4) + little_endian(static_cast<std::uint32_t>(archive.size()), 4) + name;
    archive += little_endian(0x04034b50, 4) + common + name + std::string(bytes.begin(), bytes.end());
  }
  const std::string end = large ? large_end(files.size(), directory.size(), archive.size())
                                : end_of(files.size(), directory.size(), archive.size());
  return bytes_of(archive + directory + end);
}

}  // namespace fixtures
