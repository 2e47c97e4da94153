#include <doctest/doctest.h>

#include <numeric>

#include "decode_scratch.hpp"
#include "decoder.hpp"
#include "eightfold/error.hpp"

using namespace eightfold;
using namespace eightfold::detail;

namespace {

constexpr Size kTensor = {64, 64};

TensorSpec floats(const std::string& name, const std::vector<std::int64_t>& shape) {
  return {name, DataType::float32, shape};
}

Prediction decoded(const Task& task, const std::vector<TensorSpec>& specs,
                   const std::vector<std::vector<float>>& values, const Placement& placement) {
  const auto decoder = decoder_of(task, {specs, kTensor});
  std::vector<Output> outputs;
  for (std::size_t i = 0; i < specs.size(); ++i) outputs.push_back({&specs[i], values[i].data()});
  DecodeScratch scratch;
  Prediction prediction;
  decoder->decode(outputs, 0, placement, scratch, prediction);
  return prediction;
}

Task task_of(const std::string& decode, const std::string& options = "{}") {
  return {"detect", decode, {}, options};
}

constexpr Placement kIdentity = {{64, 64}, {64, 64}, 0, 0, {64, 64}};
// 60 x 30 pixels in the middle of the tensor.
constexpr Placement kLetterbox = {{30, 60}, {32, 64}, 16, 0, {64, 64}};

}  // namespace

TEST_CASE("a prototype of the left half of the tensor marks the left half of the box") {
  std::vector<float> prototype(16 * 16);
  for (std::size_t i = 0; i < prototype.size(); ++i) prototype[i] = i % 16 < 8 ? 1.0F : -1.0F;
  const std::vector<TensorSpec> specs = {floats("rows", {1, 6, 1}), floats("masks", {1, 1, 16, 16})};
  const Prediction found =
      decoded(task_of("yolo-masks"), specs, {{32, 32, 60, 28, 0.9F, 1}, prototype}, kLetterbox);
  REQUIRE(found.masks.size() == 1);
  const InstanceMask& mask = found.masks[0];
  CHECK(mask.left == 2);
  CHECK(mask.top == 2);
  CHECK(mask.height == 27);
  REQUIRE(mask.values.size() == static_cast<std::size_t>(mask.width * mask.height));
  for (int x = 0; x < mask.width; ++x)
    CHECK(mask.values[static_cast<std::size_t>(x)] == (mask.left + x < 30));
}

TEST_CASE("a box outside the image has an empty mask") {
  const std::vector<TensorSpec> specs = {floats("rows", {1, 6, 1}), floats("masks", {1, 1, 4, 4})};
  for (const float away : {-200.0F, 300.0F}) {
    const Prediction found = decoded(task_of("yolo-masks"), specs,
                                     {{away, away, 8, 8, 0.9F, 1}, std::vector<float>(16, 1.0F)}, kIdentity);
    REQUIRE(found.masks.size() == 1);
    CHECK(found.masks[0].values.empty());
  }
}

TEST_CASE("keypoints follow the boxes that stay") {
  // Two locations; the second overlaps the first and has the lower score.
  const std::vector<float> rows = {32, 33, 32, 32, 20, 20, 20, 20, 0.9F, 0.8F, 10, 11, 20, 21, 0.5F, 0.6F};
  const std::vector<TensorSpec> specs = {floats("rows", {1, 8, 2})};
  const Prediction kept =
      decoded(task_of("yolo-keypoints", R"({"keypoints": 1})"), specs, {rows}, kLetterbox);
  REQUIRE(kept.keypoints.size() == 1);
  CHECK(kept.keypoints[0].x == doctest::Approx(10 * 60.0 / 64));
  CHECK(kept.keypoints[0].y == doctest::Approx((20 - 16) * 30.0 / 32));
  CHECK(kept.keypoints[0].score == 0.5F);
}

TEST_CASE("outputs of another form and wrong options are refused when the decoder is made") {
  const auto message = [](const Task& task, const std::vector<TensorSpec>& specs) -> std::string {
    try {
      decoder_of(task, {specs, kTensor});
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  const auto has = [](const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
  };
  CHECK(has(message(task_of("yolo-masks"), {floats("rows", {1, 8, 9})}), "0 outputs (B, prototypes, H, W)"));
  const TensorSpec prototypes = floats("masks", {1, 4, 8, 8});
  CHECK(has(message(task_of("yolo-masks"), {floats("rows", {1, 8, 9}), prototypes}),
            "(B, 4 + classes + 4, N)"));
  CHECK(message(task_of("yolo-masks"), {floats("rows", {1, 9, 9}), prototypes}).empty());
  CHECK(has(message(task_of("yolo-keypoints"), {floats("rows", {1, 8, 9})}), "keypoints"));
  CHECK(has(
      message(task_of("yolo-keypoints", R"({"keypoints": 1, "dimensions": 4})"), {floats("rows", {1, 8, 9})}),
      "dimensions"));
  CHECK(has(message(task_of("yolo-oriented", R"({"turn": 1})"), {floats("rows", {1, 8, 9})}), "turn"));
}
