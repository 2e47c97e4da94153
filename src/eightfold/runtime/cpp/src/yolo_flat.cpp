// Heads whose output holds boxes already: `yolo-boxes` and `end-to-end`.
#include <cmath>

#include "detector.hpp"
#include "eightfold/error.hpp"
#include "yolo.hpp"

namespace eightfold::detail {
namespace {

const TensorSpec& only_output(const DecoderInputs& inputs, const char* decoder) {
  if (inputs.outputs.size() == 1) return inputs.outputs[0];
  throw Error(ErrorCode::bundle, "the model has " + std::to_string(inputs.outputs.size()) + " outputs",
              std::string("one for '") + decoder + "'", "choose another decoder");
}

// One output of decoded boxes and class probabilities, as ultralytics exports it.
class YoloBoxes : public Head {
 public:
  YoloBoxes(const JsonNode& options, const DecoderInputs& inputs) {
    const auto flag = [&](const char* key) { return options.has(key) && options.at(key).boolean(); };
    channels_last_ = flag("channels_last");
    objectness_ = flag("objectness");
    if (flag("normalized"))
      scale_ = {static_cast<float>(inputs.tensor.height), static_cast<float>(inputs.tensor.width)};
    const TensorSpec& output = only_output(inputs, "yolo-boxes");
    const bool flat = output.shape.size() == 3;
    const std::int64_t channels = flat ? output.shape[channels_last_ ? 2 : 1] : 0;
    if (channels <= first_class()) {
      wrong_shape(output, "(B, " + std::to_string(first_class()) +
                              " + classes, N), or turned round with channels_last");
    }
    channels_ = static_cast<std::size_t>(channels);
    locations_ = static_cast<std::size_t>(output.shape[channels_last_ ? 1 : 2]);
  }

  void list(Row row, const DetectorOptions& options, DecodeScratch& scratch) const override {
    const float* data = row[0].data();
    const auto first = static_cast<std::size_t>(first_class());
    const std::size_t classes = channels_ - first;
    const ScoreMap scores = {data + first * channel_step(), classes, locations_, channel_step(),
                             location_step()};
    // A product with an objectness of at most 1 never exceeds the class score alone.
    find_above(scores, options.score_threshold, options.multi_label, scratch.found);
    for (const Found& each : scratch.found) {
      const float score = objectness_ ? each.value * value(data, each.location, 4) : each.value;
      if (!(score > options.score_threshold)) continue;
      const auto location = static_cast<std::int64_t>(each.location);
      scratch.candidates.push_back(
          {score, each.label, location, location * static_cast<std::int64_t>(classes) + each.label});
    }
  }

  Box box(Row row, std::int64_t location) const override {
    const auto at = [&](std::size_t channel) {
      return value(row[0].data(), static_cast<std::size_t>(location), channel);
    };
    const float half_width = at(2) / 2;
    const float half_height = at(3) / 2;
    return {(at(0) - half_width) * scale_.x, (at(1) - half_height) * scale_.y,
            (at(0) + half_width) * scale_.x, (at(1) + half_height) * scale_.y};
  }

 private:
  struct Scale {
    float y = 1;
    float x = 1;
  };

  int first_class() const { return objectness_ ? 5 : 4; }
  std::size_t channel_step() const { return channels_last_ ? 1 : locations_; }
  std::size_t location_step() const { return channels_last_ ? channels_ : 1; }
  float value(const float* data, std::size_t location, std::size_t channel) const {
    return data[location * location_step() + channel * channel_step()];
  }

  bool channels_last_ = false;
  bool objectness_ = false;
  Scale scale_;
  std::size_t channels_ = 0;
  std::size_t locations_ = 0;
};

// Rows x1, y1, x2, y2, score, class, that need no suppression (Wang et al., YOLOv10, NeurIPS 2024).
class EndToEnd : public Head {
 public:
  explicit EndToEnd(const DecoderInputs& inputs) {
    const TensorSpec& output = only_output(inputs, "end-to-end");
    if (output.shape.size() != 3 || output.shape[2] != kValues) wrong_shape(output, "(B, K, 6)");
  }

  void list(Row row, const DetectorOptions& options, DecodeScratch& scratch) const override {
    const auto count = static_cast<std::int64_t>(row[0].size()) / kValues;
    for (std::int64_t i = 0; i < count; ++i) {
      const float* values = row[0].data() + i * kValues;
      if (!(values[4] > options.score_threshold)) continue;
      scratch.candidates.push_back({values[4], label_from(values[5]), i, i});
    }
  }

  Box box(Row row, std::int64_t location) const override {
    const float* values = row[0].data() + location * kValues;
    return {values[0], values[1], values[2], values[3]};
  }

 private:
  static constexpr std::int64_t kValues = 6;

  // What no integer can hold is no class.
  static std::int32_t label_from(float value) {
    return std::abs(value) < 0x1p30F ? static_cast<std::int32_t>(std::nearbyint(value)) : -1;
  }
};

}  // namespace

std::unique_ptr<Decoder> make_yolo_boxes(const JsonNode& options, const DecoderInputs& inputs) {
  allow_detector_keys(options, {"channels_last", "objectness", "normalized"});
  return make_detector(std::make_unique<YoloBoxes>(options, inputs), detector_options_from(options, {}));
}

std::unique_ptr<Decoder> make_end_to_end(const JsonNode& options, const DecoderInputs& inputs) {
  allow_detector_keys(options, {});
  DetectorOptions chosen = detector_options_from(options, {});
  if (options.has("nms") && chosen.nms) options.at("nms").fail("true", "false: an end-to-end head has none");
  chosen.nms = false;
  return make_detector(std::make_unique<EndToEnd>(inputs), chosen);
}

}  // namespace eightfold::detail
