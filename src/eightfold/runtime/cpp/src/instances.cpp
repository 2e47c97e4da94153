// `yolo-masks` and `yolo-keypoints`: rows with further values behind the classes.
#include "instances.hpp"

#include "mask_pixels.hpp"
#include "yolo_rows.hpp"

namespace eightfold::detail {
namespace {

constexpr const char* kRows = "(B, values, N)";

// Masks are sums of prototypes, weighted by coefficients (Bolya et al., YOLACT, ICCV 2019).
class YoloMasks : public YoloRows {
 public:
  YoloMasks(const JsonNode& options, const DecoderInputs& inputs, RowShape shape, std::size_t prototypes)
      : YoloRows(options, inputs, shape),
        prototypes_(prototypes),
        height_(static_cast<int>(inputs.outputs[prototypes].shape[2])),
        width_(static_cast<int>(inputs.outputs[prototypes].shape[3])) {}

  void add_parts(Row row, const Placement& placement, DecodeScratch& scratch,
                 Prediction& prediction) const override {
    prediction.masks.resize(scratch.boxes.size());
    const CellAxis rows = {0, static_cast<double>(placement.tensor.height), height_, 0};
    const CellAxis columns = {0, static_cast<double>(placement.tensor.width), width_, 0};
    for (std::size_t i = 0; i < scratch.boxes.size(); ++i) {
      InstanceMask& mask = prediction.masks[i];
      if (!place_mask(prediction.detections[i], mask)) continue;
      const MaskTaps taps = taps_of(mask, rows, columns, placement);
      sum_prototypes(row, scratch.boxes[i].location, taps, scratch.values);
      paint(scratch.values.data(), taps, 0, mask);
    }
  }

 private:
  // The logits of the cells that the taps read, row by row.
  void sum_prototypes(Row row, std::int64_t location, const MaskTaps& taps,
                      std::vector<float>& logits) const {
    const auto& [rows, columns] = taps;
    const auto wide = static_cast<std::size_t>(columns.wide());
    logits.assign(wide * static_cast<std::size_t>(rows.wide()), 0.0F);
    for (std::size_t k = 0; k < further_count(); ++k) {
      const float weight = further(row, location, k);
      const float* plane = row[prototypes_].data() + k * static_cast<std::size_t>(height_ * width_);
      float* out = logits.data();
      for (int y = rows.low; y < rows.high; ++y, out += wide) {
        const float* from = plane + y * width_ + columns.low;
        for (std::size_t x = 0; x < wide; ++x) out[x] += weight * from[x];
      }
    }
  }

  std::size_t prototypes_;
  int height_;
  int width_;
};

// Points in tensor pixels, with or without a visibility.
class YoloKeypoints : public YoloRows {
 public:
  YoloKeypoints(const JsonNode& options, const DecoderInputs& inputs, RowShape shape, std::size_t dimensions)
      : YoloRows(options, inputs, shape), dimensions_(dimensions) {}

  void add_parts(Row row, const Placement& placement, DecodeScratch& scratch,
                 Prediction& prediction) const override {
    prediction.keypoints.clear();
    for (const ScoredBox& found : scratch.boxes) {
      for (std::size_t at = 0; at < further_count(); at += dimensions_) {
        const double x = further(row, found.location, at) * unit_x();
        const double y = further(row, found.location, at + 1) * unit_y();
        const float score = dimensions_ == 3 ? further(row, found.location, at + 2) : 1;
        prediction.keypoints.push_back({static_cast<float>(placement.x_to_image(x)),
                                        static_cast<float>(placement.y_to_image(y)), score});
      }
    }
  }

 private:
  std::size_t dimensions_;
};

}  // namespace

std::unique_ptr<Decoder> make_yolo_masks(const JsonNode& options, const DecoderInputs& inputs) {
  allow_detector_keys(options, {"channels_last", "objectness", "normalized"});
  const std::size_t prototypes = only_output_of_rank(inputs, 4, "(B, prototypes, H, W)");
  const auto count = static_cast<std::size_t>(inputs.outputs[prototypes].shape[1]);
  const RowShape shape = {only_output_of_rank(inputs, 3, kRows), count};
  return make_detector(std::make_unique<YoloMasks>(options, inputs, shape, prototypes),
                       detector_options_from(options, {}));
}

std::unique_ptr<Decoder> make_yolo_keypoints(const JsonNode& options, const DecoderInputs& inputs) {
  constexpr std::int64_t kMostKeypoints = 1 << 16;
  allow_detector_keys(options, {"channels_last", "objectness", "normalized", "keypoints", "dimensions"});
  const auto count = static_cast<std::size_t>(options.at("keypoints").integer(1, kMostKeypoints));
  const std::size_t dimensions =
      options.has("dimensions") ? static_cast<std::size_t>(options.at("dimensions").integer(2, 3)) : 3;
  const RowShape shape = {only_output_of_rank(inputs, 3, kRows), count * dimensions};
  return make_detector(std::make_unique<YoloKeypoints>(options, inputs, shape, dimensions),
                       detector_options_from(options, {}));
}

}  // namespace eightfold::detail
