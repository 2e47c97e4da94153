// `yolo-grid`: class probabilities of each cell, then objectness and boxes (Redmon et al., YOLO, CVPR 2016).
#include "detector.hpp"
#include "yolo.hpp"
#include "yolo_rows.hpp"

namespace eightfold::detail {
namespace {

constexpr std::int64_t kMost = 1 << 16;

class YoloGrid : public Head {
 public:
  YoloGrid(const JsonNode& options, const DecoderInputs& inputs)
      : side_(count(options, "side")),
        boxes_(count(options, "boxes")),
        classes_(count(options, "classes")),
        square_(!options.has("square") || options.at("square").boolean()),
        tensor_(inputs.tensor) {
    require_one_output(inputs, "yolo-grid");
    const TensorSpec& spec = inputs.outputs[0];
    const std::size_t wanted = cells() * (classes_ + 5 * boxes_);
    if (spec.shape.empty() || spec.shape[0] == 0 ||
        spec.elements() / static_cast<std::size_t>(spec.shape[0]) != wanted)
      wrong_shape(spec, "(B, " + std::to_string(wanted) + ")");
  }

  void list(Row row, const DetectorOptions& options, DecodeScratch& scratch) const override {
    const float* data = row[0].data();
    const float* certain = data + cells() * classes_;
    for (std::size_t location = 0; location < cells() * boxes_; ++location) {
      scratch.values.clear();
      const float* probabilities = data + location / boxes_ * classes_;
      for (std::size_t i = 0; i < classes_; ++i)
        scratch.values.push_back(certain[location] * probabilities[i]);
      const ScoreMap scores = {scratch.values.data(), classes_, 1, 1, classes_};
      find_above(scores, options.score_threshold, options.multi_label, scratch.found);
      for (const Found& each : scratch.found) {
        const auto place = static_cast<std::int64_t>(location);
        scratch.candidates.push_back(
            {each.value, each.label, place, place * static_cast<std::int64_t>(classes_) + each.label});
      }
    }
  }

  Box box(Row row, std::int64_t location) const override {
    const auto place = static_cast<std::size_t>(location);
    const float* values = row[0].data() + cells() * (classes_ + boxes_) + place * 4;
    const std::size_t cell = place / boxes_;
    const auto width = static_cast<float>(tensor_.width);
    const auto height = static_cast<float>(tensor_.height);
    const auto extent = [&](float value) { return square_ ? value * value : value; };
    const auto centre = [&](float value, std::size_t at) {
      return (value + static_cast<float>(at)) / static_cast<float>(side_);
    };
    const float x = centre(values[0], cell % side_) * width;
    const float y = centre(values[1], cell / side_) * height;
    const float half_width = extent(values[2]) * width / 2;
    const float half_height = extent(values[3]) * height / 2;
    return {x - half_width, y - half_height, x + half_width, y + half_height};
  }

 private:
  static std::size_t count(const JsonNode& options, const char* key) {
    return static_cast<std::size_t>(options.at(key).integer(1, kMost));
  }
  std::size_t cells() const { return side_ * side_; }

  std::size_t side_;
  std::size_t boxes_;
  std::size_t classes_;
  bool square_;
  Size tensor_;
};

}  // namespace

std::unique_ptr<Decoder> make_yolo_grid(const JsonNode& options, const DecoderInputs& inputs) {
  allow_detector_keys(options, {"side", "boxes", "classes", "square"});
  return make_detector(std::make_unique<YoloGrid>(options, inputs), detector_options_from(options, {}));
}

}  // namespace eightfold::detail
