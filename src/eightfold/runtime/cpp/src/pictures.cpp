#include "pictures.hpp"

#include <algorithm>
#include <cmath>

#include "decode_scratch.hpp"
#include "detector.hpp"
#include "float_resize.hpp"

namespace eightfold::detail {
namespace {

class DepthMap : public Decoder {
 public:
  DepthMap(std::size_t output, Size grid) : output_(output), grid_(grid) {}

  void decode(span<const Output> outputs, std::size_t row, const Placement& placement, DecodeScratch& scratch,
              Prediction& prediction) const override {
    const span<const float> cells = row_as_floats(outputs[output_], output_, row, scratch);
    const FloatMap values = map_to_image({grid_, {cells.begin(), cells.end()}}, placement);
    Map<float>& map = prediction.depth;
    map.width = placement.source.width;
    map.height = placement.source.height;
    map.values.assign(values.values.begin(), values.values.end());
  }

 private:
  std::size_t output_;
  Size grid_;
};

// The part of an axis of the network's picture that shows the image.
struct Range {
  int first;
  int last;
};

Range shown(int offset, int resized, int tensor, double factor) {
  const auto scaled = [&](int place) { return static_cast<int>(std::nearbyint(place * factor)); };
  return {scaled(std::max(offset, 0)), scaled(std::min(offset + resized, tensor))};
}

class PictureOut : public Decoder {
 public:
  PictureOut(std::size_t output, Size grid, double scale) : output_(output), grid_(grid), scale_(scale) {}

  void decode(span<const Output> outputs, std::size_t row, const Placement& placement, DecodeScratch& scratch,
              Prediction& prediction) const override {
    const span<const float> values = row_as_floats(outputs[output_], output_, row, scratch);
    Picture& picture = prediction.picture;
    picture.vertical_factor = static_cast<double>(grid_.height) / placement.tensor.height;
    picture.horizontal_factor = static_cast<double>(grid_.width) / placement.tensor.width;
    picture.height = static_cast<int>(std::nearbyint(placement.source.height * picture.vertical_factor));
    picture.width = static_cast<int>(std::nearbyint(placement.source.width * picture.horizontal_factor));
    const auto plane = static_cast<std::size_t>(grid_.height) * static_cast<std::size_t>(grid_.width);
    picture.pixels.resize(3 * static_cast<std::size_t>(picture.height) *
                          static_cast<std::size_t>(picture.width));
    for (std::size_t channel = 0; channel < 3; ++channel)
      write(part_of(values.data() + channel * plane, placement, picture), channel, picture.pixels);
  }

 private:
  // One channel at the picture's size, in grey levels.
  FloatMap part_of(const float* plane, const Placement& placement, const Picture& picture) const {
    const Range rows =
        shown(placement.top, placement.resized.height, placement.tensor.height, picture.vertical_factor);
    const Range columns =
        shown(placement.left, placement.resized.width, placement.tensor.width, picture.horizontal_factor);
    FloatMap part = {{rows.last - rows.first, columns.last - columns.first}, {}};
    for (int y = rows.first; y < rows.last; ++y) {
      const float* from = plane + static_cast<std::ptrdiff_t>(y) * grid_.width;
      for (int x = columns.first; x < columns.last; ++x) part.values.push_back(from[x] * scale_);
    }
    const Size size = {picture.height, picture.width};
    return part.size == size ? part : resize_map(part, size);
  }

  static void write(const FloatMap& map, std::size_t channel, std::vector<std::uint8_t>& pixels) {
    for (std::size_t i = 0; i < map.values.size(); ++i) {
      pixels[3 * i + channel] =
          static_cast<std::uint8_t>(std::floor(std::clamp(map.values[i], 0.0, 255.0) + 0.5));
    }
  }

  std::size_t output_;
  Size grid_;
  double scale_;
};

std::string output_name(const JsonNode& options) {
  return options.has("output") ? options.at("output").string() : "";
}

}  // namespace

std::unique_ptr<Decoder> make_depth(const JsonNode& options, const DecoderInputs& inputs) {
  options.allow_keys({"output"});
  const std::size_t output = output_of(inputs, output_name(options));
  const TensorSpec& spec = inputs.outputs[output];
  const std::size_t rank = spec.shape.size();
  if (spec.elements() == 0 || !(rank == 3 || (rank == 4 && spec.shape[1] == 1)))
    wrong_shape(spec, "(B, 1, H, W) or (B, H, W)");
  const Size grid = {static_cast<int>(spec.shape[rank - 2]), static_cast<int>(spec.shape[rank - 1])};
  return std::make_unique<DepthMap>(output, grid);
}

std::unique_ptr<Decoder> make_picture(const JsonNode& options, const DecoderInputs& inputs) {
  options.allow_keys({"output", "scale"});
  const std::size_t output = output_of(inputs, output_name(options));
  const TensorSpec& spec = inputs.outputs[output];
  if (spec.shape.size() != 4 || spec.shape[1] != 3 || spec.elements() == 0) wrong_shape(spec, "(B, 3, H, W)");
  const double scale = options.has("scale") ? options.at("scale").number() : 255;
  if (!(scale > 0)) options.at("scale").fail(std::to_string(scale), "a number above 0");
  const Size grid = {static_cast<int>(spec.shape[2]), static_cast<int>(spec.shape[3])};
  return std::make_unique<PictureOut>(output, grid, scale);
}

}  // namespace eightfold::detail
