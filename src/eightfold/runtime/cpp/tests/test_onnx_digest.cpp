#include <doctest/doctest.h>

#include "eightfold/error.hpp"
#include "fixtures.hpp"
#include "onnx_digest.hpp"
#include "sha256.hpp"

using eightfold::detail::sha256_hex;
using eightfold::detail::sha256_of_onnx;

namespace {

// One field of a protobuf message that holds bytes.
std::string field(int number, const std::string& content) {
  return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(content.size())} + content;
}

// TensorProto: its values lie in a file.
std::string weight(const std::string& file) {
  const std::string entry = field(1, "location") + field(2, file);
  return field(13, entry) + std::string{14 << 3, 1};
}

fixtures::Bytes model(const std::string& first, const std::string& second) {
  return fixtures::bytes_of(
      field(7, field(5, weight(first)) + field(5, weight(second)) + field(5, weight(first))));
}

}  // namespace

TEST_CASE("a graph that holds its weights has the digest of its file") {
  const fixtures::Folder folder;
  fixtures::write(folder / "net.onnx", fixtures::mean_model(1));
  CHECK(sha256_of_onnx(folder / "net.onnx") == sha256_hex(fixtures::mean_model(1)));
}

TEST_CASE("files of weights count once each, sorted by name") {
  const fixtures::Folder folder;
  const fixtures::Bytes graph = model("b.bin", "a.bin");
  fixtures::write(folder / "net.onnx", graph);
  fixtures::write(folder / "a.bin", fixtures::bytes_of("first"));
  fixtures::write(folder / "b.bin", fixtures::bytes_of("second"));
  const std::string together =
      sha256_hex(graph) + sha256_hex(fixtures::bytes_of("first")) + sha256_hex(fixtures::bytes_of("second"));
  CHECK(sha256_of_onnx(folder / "net.onnx") == sha256_hex(fixtures::bytes_of(together)));
}

TEST_CASE("a file of weights that is missing is an error") {
  const fixtures::Folder folder;
  fixtures::write(folder / "net.onnx", model("a.bin", "a.bin"));
  CHECK_THROWS_AS(sha256_of_onnx(folder / "net.onnx"), eightfold::Error);
}

TEST_CASE("what is no graph is an error") {
  const fixtures::Folder folder;
  fixtures::write(folder / "net.onnx", fixtures::bytes_of("hello world"));
  CHECK_THROWS_AS(sha256_of_onnx(folder / "net.onnx"), eightfold::Error);
}
