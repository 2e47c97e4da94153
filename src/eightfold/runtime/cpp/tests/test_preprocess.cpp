#include <doctest/doctest.h>

#include <cstring>
#include <random>

#include "bilinear.hpp"
#include "eightfold/error.hpp"
#include "eightfold/preprocess.hpp"
#include "taps.hpp"

using namespace eightfold;

namespace {

std::vector<std::uint8_t> noise(std::size_t count) {
  std::mt19937 random(3);
  std::vector<std::uint8_t> bytes(count);
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random());
  return bytes;
}

Preprocess bytes_definition(int height, int width) {
  Preprocess definition;
  definition.height = height;
  definition.width = width;
  definition.bytes = true;
  definition.layout = Layout::nhwc;
  return definition;
}

}  // namespace

TEST_CASE("the fast bilinear loop agrees with portable code where it is sure") {
  const std::vector<std::uint8_t> image = noise(2 * 300);
  for (const int pixel_bytes : {3, 4}) {
    constexpr int count = 61;
    std::vector<std::int32_t> offset(count);
    std::vector<std::int16_t> weights(count * detail::kBilinearWeights);
    for (int x = 0; x < count; ++x) {
      offset[static_cast<std::size_t>(x)] = x * pixel_bytes;
      for (int k = 0; k < detail::kBilinearWeights; ++k) {
        weights[static_cast<std::size_t>(x * detail::kBilinearWeights + k)] =
            static_cast<std::int16_t>(k % 2 == 0 ? count - x : x);
      }
    }
    const detail::BilinearRow row = {image.data(),   image.data() + 300, 0.37F,       offset.data(),
                                     weights.data(), 1.0F / count,       pixel_bytes, 1e-3F};
    std::vector<std::uint8_t> fast(3 * count + detail::kBilinearSlack);
    std::vector<std::uint8_t> portable(fast.size());
    std::vector<std::int32_t> doubtful(count + detail::kBilinearSlack);
    const int fast_doubts = detail::bilinear_row()(row, count, fast.data(), doubtful.data());
    std::vector<bool> sure(count, true);
    for (int i = 0; i < fast_doubts; ++i)
      sure[static_cast<std::size_t>(doubtful[static_cast<std::size_t>(i)])] = false;
    detail::bilinear_row_portable(row, count, portable.data(), doubtful.data());
    for (int x = 0; x < count; ++x) {
      if (sure[static_cast<std::size_t>(x)])
        CHECK(std::memcmp(&fast[3 * static_cast<std::size_t>(x)], &portable[3 * static_cast<std::size_t>(x)],
                          3) == 0);
    }
  }
}

TEST_CASE("images at the very end of their memory, at every size") {
  // The address sanitizer finds any byte read beyond.
  for (const PixelFormat format : {PixelFormat::rgb, PixelFormat::rgba, PixelFormat::grey}) {
    for (int width = 1; width < 20; ++width) {
      for (int height = 1; height < 6; ++height) {
        const std::vector<std::uint8_t> pixels =
            noise(static_cast<std::size_t>(width * height * channels_of(format)));
        for (const int side : {1, 2, 5, 16, 33}) {
          const Preprocessor preprocessor(bytes_definition(side, side + 1));
          std::vector<std::uint8_t> tensor(preprocessor.bytes());
          preprocessor.run({pixels.data(), width, height, format, 0}, tensor.data());
        }
      }
    }
  }
}

TEST_CASE("stored channels of 8 and 16 bits at the very end of their memory") {
  for (const PixelType type : {PixelType::uint8, PixelType::uint16}) {
    for (const int channels : {1, 2, 3, 4, 6}) {
      for (const int width : {1, 2, 3, 17}) {
        const std::size_t count = static_cast<std::size_t>(width * 5 * channels);
        const std::vector<std::uint8_t> pixels = noise(count * bytes_of(type));
        for (const int side : {1, 5, 16}) {
          Preprocess definition = bytes_definition(side, side + 1);
          definition.bytes = false;
          definition.color = Color::as_is;
          definition.stored_channels = channels;
          definition.pixels = type;
          const Preprocessor preprocessor(definition);
          std::vector<float> tensor(preprocessor.bytes() / sizeof(float));
          preprocessor.run({pixels.data(), width, 5, PixelFormat::stored, 0, channels, type}, tensor.data());
        }
      }
    }
  }
}

TEST_CASE("16-bit pixels at an odd address are refused") {
  Preprocess definition = bytes_definition(2, 2);
  definition.bytes = false;
  definition.pixels = PixelType::uint16;
  const Preprocessor preprocessor(definition);
  const std::vector<std::uint8_t> pixels(100);
  std::vector<float> tensor(12);
  const ImageView image = {pixels.data() + 1, 2, 2, PixelFormat::rgb, 0, 0, PixelType::uint16};
  CHECK_THROWS_AS(preprocessor.run(image, tensor.data()), Error);
}

TEST_CASE("a constant image stays constant under every kernel") {
  const std::vector<std::uint8_t> pixels(37 * 53 * 3, 201);
  for (const Interpolation interpolation :
       {Interpolation::bilinear, Interpolation::area, Interpolation::bicubic}) {
    for (const bool antialias : {false, true}) {
      Preprocess definition = bytes_definition(24, 80);
      definition.interpolation = interpolation;
      definition.antialias = antialias;
      const Preprocessor preprocessor(definition);
      std::vector<std::uint8_t> tensor(preprocessor.bytes());
      preprocessor.run({pixels.data(), 53, 37, PixelFormat::rgb, 0}, tensor.data());
      CHECK(tensor == std::vector<std::uint8_t>(tensor.size(), 201));
    }
  }
}

TEST_CASE("bands of rows make the whole, and scratch is used again") {
  const std::vector<std::uint8_t> pixels = noise(90 * 70 * 3);
  const ImageView image = {pixels.data(), 90, 70, PixelFormat::bgr, 0};
  Preprocess definition;
  definition.height = 31;
  definition.width = 45;
  definition.resize = Resize::letterbox;
  const Preprocessor preprocessor(definition);
  std::vector<float> whole(preprocessor.bytes() / sizeof(float));
  std::vector<float> parts(whole.size(), -1);
  preprocessor.run(image, whole.data());
  PreprocessScratch scratch;
  for (int row = 0; row < 31; row += 10) {
    preprocessor.run(image, parts.data(), scratch, {row, std::min(row + 10, 31)});
  }
  CHECK(whole == parts);
}

TEST_CASE("where an image lands, and the way back") {
  Preprocess definition = bytes_definition(64, 64);
  definition.resize = Resize::letterbox;
  const Placement box = place(definition, 100, 200);
  CHECK(box.resized.height == 32);
  CHECK(box.top == 16);
  CHECK(box.y_to_image(16) == 0);
  CHECK(box.y_to_image(48) == doctest::Approx(100));
  CHECK(box.x_to_image(1000) == 200);
  definition.resize = Resize::center_crop;
  definition.shorter_side = 80;
  CHECK(place(definition, 100, 200).left == -48);
}

TEST_CASE("the same definition at another size") {
  Preprocess definition = bytes_definition(224, 160);
  const Preprocess other = definition.at_size({64, 96});
  CHECK(other.height == 64);
  CHECK(other.width == 96);
  CHECK(other.shorter_side == 0);
  CHECK(other.bytes);
  definition.shorter_side = 256;
  CHECK(definition.at_size({224, 160}).shorter_side == 256);
  CHECK(definition.at_size({160, 160}).shorter_side == 183);  // 182.86
  CHECK(definition.at_size({10, 7}).shorter_side == 11);      // 11.43
  CHECK(definition.at_size({7, 7}).shorter_side == 8);
  definition.shorter_side = 240;
  CHECK(definition.at_size({7, 7}).shorter_side == 8);  // 7.5
  definition.shorter_side = 224;
  CHECK(definition.at_size({3, 65536}).shorter_side == 65536);
  definition.shorter_side = 65536;
  CHECK_THROWS_AS(definition.at_size({3, 65536}), Error);  // a shorter side of nineteen million
  CHECK_THROWS_AS(definition.at_size({0, 8}), Error);
  CHECK_THROWS_AS(definition.at_size({8, 65537}), Error);
}

TEST_CASE("images that cannot be used") {
  const Preprocessor preprocessor(bytes_definition(8, 8));
  const std::vector<std::uint8_t> pixels(300);
  std::vector<std::uint8_t> tensor(preprocessor.bytes());
  const auto run = [&](const ImageView& image) { preprocessor.run(image, tensor.data()); };
  CHECK_THROWS_AS(run({nullptr, 8, 8, PixelFormat::rgb, 0}), Error);
  CHECK_THROWS_AS(run({pixels.data(), 0, 8, PixelFormat::rgb, 0}), Error);
  CHECK_THROWS_AS(run({pixels.data(), 8, -1, PixelFormat::rgb, 0}), Error);
  CHECK_THROWS_AS(run({pixels.data(), 8, 8, PixelFormat::rgb, 23}), Error);
  CHECK_THROWS_AS(run({pixels.data(), 8, 8, static_cast<PixelFormat>(9), 0}), Error);
  CHECK_THROWS_AS(run({pixels.data(), 1 << 20, 1, PixelFormat::rgb, 0}), Error);
}
