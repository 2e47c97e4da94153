#include <doctest/doctest.h>

#include <string>

#include "eightfold/error.hpp"
#include "eightfold/manifest.hpp"
#include "fixtures.hpp"

using eightfold::Error;
using eightfold::ErrorCode;
using eightfold::Manifest;

namespace {

std::string valid() {
  const fixtures::Bytes bytes = fixtures::bundle_files({1}).at("manifest.json");
  return {bytes.begin(), bytes.end()};
}

// The message for the valid manifest with one part replaced.
std::string fault(const std::string& part, const std::string& by) {
  std::string text = valid();
  const std::size_t at = text.find(part);
  REQUIRE(at != std::string::npos);
  text.replace(at, part.size(), by);
  try {
    eightfold::manifest_from_json(text, "m");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::bundle);
    return error.what();
  }
  return "";
}

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("a manifest is read with the defaults of Python") {
  const Manifest manifest = eightfold::manifest_from_json(valid(), "m");
  CHECK(manifest.task.labels.size() == 3);
  CHECK(manifest.preprocess.pad_value == 114);
  CHECK(manifest.preprocess.scale == 1.0 / 255);
  CHECK(manifest.artifacts.at(0).inputs.at(0).bytes() == 1 * 3 * 8 * 8 * 4);
}

TEST_CASE("the first fault is named by its place") {
  CHECK(holds(fault(R"("batch": 1)", R"("batch": 0)"),
              "m: artifacts.0.batch is 0; allowed: a whole number from 1"));
  CHECK(holds(fault(R"("batch": 1)", R"("batch": 1.5)"), "artifacts.0.batch is 1.5"));
  CHECK(holds(fault(R"("batch": 1)", R"("batch": 1e300)"), "artifacts.0.batch"));
  CHECK(holds(fault(R"("batch": 1,)", ""), "artifacts.0.batch is missing"));
  CHECK(holds(fault(R"("fp32")", R"("fp31")"),
              "artifacts.0.precision is 'fp31'; allowed: fp32, fp16, bf16, int8"));
  CHECK(holds(fault(R"("height": 8)", R"("heigth": 8)"), "preprocess.heigth is a key"));
  CHECK(holds(fault(R"("height": 8)", R"("height": "8")"), "preprocess.height is not a number"));
  CHECK(holds(fault(R"("width": 8)", R"("width": 8, "std": [0])"), "std that is not positive"));
  CHECK(holds(fault(R"("width": 8)", R"("width": 8, "mean": [1, 2])"), "preprocess.mean is 2 entries long"));
  CHECK(holds(fault(R"("width": 8)", R"("width": 8, "shorter_side": 7)"), "preprocess.shorter_side"));
  CHECK(holds(fault(R"([1, 3, 8, 8])", R"([1, 4000000000, 4000000000, 8])"), "shape.2"));
  CHECK(holds(fault(R"("schema": 1)", R"("schema": 2)"), "schema is 2"));
  CHECK(holds(fault("bundle manifest", "ranges"), "kind is 'ranges'"));
  CHECK(holds(fault(R"("sha256": ")", R"("sha256": "x)"), "sha256"));
}

TEST_CASE("what is not JSON is refused") {
  for (const std::string text : {"", "{", "[1, 2", "nul", "{\"a\": \"\xff\"}", "{\"a\": 1e999}"}) {
    CHECK_THROWS_AS(eightfold::manifest_from_json(text, "m"), Error);
  }
  CHECK_THROWS_AS(eightfold::manifest_from_json(std::string(100000, '['), "m"), Error);
}
