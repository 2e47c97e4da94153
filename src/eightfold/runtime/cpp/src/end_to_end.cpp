// `end-to-end`, and `rcnn-masks` with a map of probabilities over each box (He et al., Mask R-CNN, ICCV
// 2017).
#include "end_to_end.hpp"

#include <cmath>

#include "instances.hpp"
#include "mask_pixels.hpp"
#include "yolo.hpp"
#include "yolo_rows.hpp"

namespace eightfold::detail {
namespace {

// What no integer can hold is no class.
std::int32_t label_from(float value) {
  return std::abs(value) < 0x1p30F ? static_cast<std::int32_t>(std::nearbyint(value)) : -1;
}

class RcnnMasks : public EndToEnd {
 public:
  RcnnMasks(const DecoderInputs& inputs, std::size_t rows, std::size_t maps, double threshold)
      : EndToEnd(inputs, rows), maps_(maps), threshold_(threshold) {
    const TensorSpec& spec = inputs.outputs[maps];
    if (spec.shape[1] != inputs.outputs[rows].shape[1])
      wrong_shape(spec, "(B, K, H, W), one map for each row");
    height_ = static_cast<int>(spec.shape[2]);
    width_ = static_cast<int>(spec.shape[3]);
  }

  void add_parts(Row row, const Placement& placement, DecodeScratch& scratch,
                 Prediction& prediction) const override {
    prediction.masks.resize(scratch.boxes.size());
    for (std::size_t i = 0; i < scratch.boxes.size(); ++i) {
      InstanceMask& mask = prediction.masks[i];
      if (!place_mask(prediction.detections[i], mask)) continue;
      const Box& box = scratch.boxes[i].box;
      const MaskTaps taps =
          taps_of(mask, {box.y1, box.y2, height_, 1}, {box.x1, box.x2, width_, 1}, placement);
      copy_cells(row[maps_].data() + scratch.boxes[i].location * height_ * width_, taps, scratch.values);
      paint(scratch.values.data(), taps, threshold_, mask);
    }
  }

 private:
  // Those that the taps read; around a map all is 0.
  void copy_cells(const float* map, const MaskTaps& taps, std::vector<float>& cells) const {
    cells.clear();
    for (int y = taps.rows.low - 1; y < taps.rows.high - 1; ++y) {
      for (int x = taps.columns.low - 1; x < taps.columns.high - 1; ++x) {
        const bool inside = y >= 0 && y < height_ && x >= 0 && x < width_;
        cells.push_back(inside ? map[y * width_ + x] : 0.0F);
      }
    }
  }

  std::size_t maps_;
  double threshold_;
  int height_ = 0;
  int width_ = 0;
};

}  // namespace

EndToEnd::EndToEnd(const DecoderInputs& inputs, std::size_t output) : output_(output) {
  const TensorSpec& spec = inputs.outputs[output];
  if (spec.shape.size() != 3 || spec.shape[2] != kValues) wrong_shape(spec, "(B, K, 6)");
}

void EndToEnd::list(Row row, const DetectorOptions& options, DecodeScratch& scratch) const {
  const auto count = static_cast<std::int64_t>(row[output_].size()) / kValues;
  for (std::int64_t i = 0; i < count; ++i) {
    const float* values = row[output_].data() + i * kValues;
    if (!(values[4] > options.score_threshold)) continue;
    scratch.candidates.push_back({values[4], label_from(values[5]), i, i});
  }
}

Box EndToEnd::box(Row row, std::int64_t location) const {
  const float* values = row[output_].data() + location * kValues;
  return {values[0], values[1], values[2], values[3]};
}

DetectorOptions end_to_end_options_from(const JsonNode& options) {
  DetectorOptions chosen = detector_options_from(options, {});
  if (options.has("nms") && chosen.nms) options.at("nms").fail("true", "false: an end-to-end head has none");
  chosen.nms = false;
  return chosen;
}

std::unique_ptr<Decoder> make_end_to_end(const JsonNode& options, const DecoderInputs& inputs) {
  allow_detector_keys(options, {});
  require_one_output(inputs, "end-to-end");
  return make_detector(std::make_unique<EndToEnd>(inputs, 0), end_to_end_options_from(options));
}

std::unique_ptr<Decoder> make_rcnn_masks(const JsonNode& options, const DecoderInputs& inputs) {
  allow_detector_keys(options, {"mask_threshold"});
  const double threshold = options.has("mask_threshold") ? options.at("mask_threshold").number() : 0.5;
  if (!(threshold >= 0 && threshold <= 1))
    options.at("mask_threshold").fail(std::to_string(threshold), "a number from 0 to 1");
  const std::size_t rows = only_output_of_rank(inputs, 3, "(B, K, 6)");
  const std::size_t maps = only_output_of_rank(inputs, 4, "(B, K, H, W)");
  return make_detector(std::make_unique<RcnnMasks>(inputs, rows, maps, threshold),
                       end_to_end_options_from(options));
}

}  // namespace eightfold::detail
