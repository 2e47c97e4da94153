#include <doctest/doctest.h>

#include "decode_scratch.hpp"
#include "decoder.hpp"
#include "eightfold/error.hpp"

using namespace eightfold;
using namespace eightfold::detail;

namespace {

Prediction decoded(const std::string& decode, const TensorSpec& spec, const std::vector<float>& values,
                   const Placement& placement) {
  const std::vector<TensorSpec> specs = {spec};
  const auto decoder = decoder_of({"tensors", decode, {}, "{}"}, {specs, placement.tensor});
  const std::vector<Output> outputs = {{&specs[0], values.data()}};
  DecodeScratch scratch;
  Prediction prediction;
  decoder->decode(outputs, 0, placement, scratch, prediction);
  return prediction;
}

}  // namespace

TEST_CASE("depth comes back to the image's size") {
  const TensorSpec spec = {"depth", DataType::float32, {1, 8, 8}};
  const Placement placement = {{16, 8}, {8, 4}, 0, 2, {8, 8}};
  const Prediction found = decoded("depth", spec, std::vector<float>(64, 3.5F), placement);
  CHECK(found.depth.width == 8);
  CHECK(found.depth.height == 16);
  REQUIRE(found.depth.values.size() == 128);
  for (const float value : found.depth.values) CHECK(value == 3.5F);
}

TEST_CASE("a picture of twice the size keeps its pixels") {
  const TensorSpec spec = {"picture", DataType::float32, {1, 3, 8, 8}};
  std::vector<float> values(3 * 64);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) / 255.0F;
  // Two rows of the tensor are padding.
  const Prediction found = decoded("picture", spec, values, {{2, 4}, {2, 4}, 1, 0, {4, 4}});
  const Picture& picture = found.picture;
  CHECK(picture.width == 8);
  CHECK(picture.height == 4);
  CHECK(picture.vertical_factor == 2);
  REQUIRE(picture.pixels.size() == 96);
  CHECK(picture.pixels[0] == 16);
  CHECK(picture.pixels[1] == 16 + 64);
  CHECK(picture.pixels[95] == 47 + 128);
}

TEST_CASE("values beyond those of a picture are cut") {
  const TensorSpec spec = {"picture", DataType::float32, {1, 3, 1, 2}};
  const Prediction found = decoded("picture", spec, {-1, 2, 0.5F, 0, 1, 0}, {{1, 2}, {1, 2}, 0, 0, {1, 2}});
  CHECK(found.picture.pixels == std::vector<std::uint8_t>{0, 128, 255, 255, 0, 0});
}
