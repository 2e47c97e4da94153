#include "dense.hpp"

#include <algorithm>
#include <cmath>

#include "decode_scratch.hpp"
#include "detector.hpp"
#include "float_resize.hpp"

namespace eightfold::detail {
namespace {

constexpr std::uint8_t kOutside = 255;

Size grid_of(const TensorSpec& spec) {
  return {static_cast<int>(spec.shape[2]), static_cast<int>(spec.shape[3])};
}

// For each image pixel of an axis the cell that its centre falls into; -1 outside the tensor.
std::vector<int> cells_of_axis(int source, int resized, int offset, int tensor, int cells) {
  const double scale = static_cast<double>(resized) / source;
  std::vector<int> result(static_cast<std::size_t>(source));
  for (int i = 0; i < source; ++i) {
    const double cell = std::floor(((i + 0.5) * scale + offset) * cells / tensor);
    result[static_cast<std::size_t>(i)] = cell >= 0 && cell < cells ? static_cast<int>(cell) : -1;
  }
  return result;
}

class Segmenter : public Decoder {
 public:
  Segmenter(float threshold, const TensorSpec& spec)
      : threshold_(threshold), grid_(grid_of(spec)), classes_(static_cast<std::size_t>(spec.shape[1])) {}

  void decode(span<const Output> outputs, std::size_t row, const Placement& placement, DecodeScratch& scratch,
              Prediction& prediction) const override {
    label_cells(row_as_floats(outputs[0], 0, row, scratch), scratch.best);
    const std::vector<int> rows = cells_of_axis(placement.source.height, placement.resized.height,
                                                placement.top, placement.tensor.height, grid_.height);
    const std::vector<int> columns = cells_of_axis(placement.source.width, placement.resized.width,
                                                   placement.left, placement.tensor.width, grid_.width);
    Map<std::uint8_t>& map = prediction.segments;
    map.width = placement.source.width;
    map.height = placement.source.height;
    map.values.resize(rows.size() * columns.size());
    auto out = map.values.begin();
    for (const int y : rows) {
      for (const int x : columns) {
        const auto cell = static_cast<std::size_t>(y * grid_.width + x);
        *out++ = y < 0 || x < 0 ? kOutside : static_cast<std::uint8_t>(scratch.best.label[cell]);
      }
    }
  }

 private:
  void label_cells(span<const float> scores, BestClasses& best) const {
    const std::size_t cells = scores.size() / classes_;
    if (classes_ > 1) return best_classes({scores.data(), classes_, cells, cells, 1}, best);
    best.label.resize(cells);
    for (std::size_t i = 0; i < cells; ++i) best.label[i] = scores[i] > threshold_ ? 1 : 0;
  }

  float threshold_;
  Size grid_;
  std::size_t classes_;
};

class MatteDecoder : public Decoder {
 public:
  MatteDecoder(std::size_t output, Size grid) : output_(output), grid_(grid) {}

  void decode(span<const Output> outputs, std::size_t row, const Placement& placement, DecodeScratch& scratch,
              Prediction& prediction) const override {
    const span<const float> cells = row_as_floats(outputs[output_], output_, row, scratch);
    const FloatMap alpha = map_to_image({grid_, {cells.begin(), cells.end()}}, placement);
    Map<float>& map = prediction.alpha;
    map.width = placement.source.width;
    map.height = placement.source.height;
    map.values.resize(alpha.values.size());
    std::transform(alpha.values.begin(), alpha.values.end(), map.values.begin(),
                   [](double value) { return static_cast<float>(std::clamp(value, 0.0, 1.0)); });
  }

 private:
  std::size_t output_;
  Size grid_;
};

}  // namespace

std::unique_ptr<Decoder> make_segmenter(const JsonNode& options, const DecoderInputs& inputs) {
  options.allow_keys({"threshold"});
  const TensorSpec& spec = inputs.outputs[0];
  if (inputs.outputs.size() != 1 || spec.shape.size() != 4 || spec.elements() == 0 ||
      spec.shape[1] > kOutside) {
    wrong_shape(spec, "one output, (B, classes up to 255, H, W)");
  }
  const double threshold = options.has("threshold") ? options.at("threshold").number() : 0;
  return std::make_unique<Segmenter>(static_cast<float>(threshold), spec);
}

std::unique_ptr<Decoder> make_matte(const JsonNode& options, const DecoderInputs& inputs) {
  options.allow_keys({"output"});
  const std::size_t output = options.has("output") ? output_of(inputs, options.at("output").string()) : 0;
  const TensorSpec& spec = inputs.outputs[output];
  if (spec.shape.size() != 4 || spec.shape[1] != 1 || spec.elements() == 0) wrong_shape(spec, "(B, 1, H, W)");
  return std::make_unique<MatteDecoder>(output, grid_of(spec));
}

}  // namespace eightfold::detail
