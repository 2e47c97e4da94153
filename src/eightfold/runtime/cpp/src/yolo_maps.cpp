// Raw heads of the YOLO family, one map per scale: `yolo-dfl` and `yolo-anchors`.
#include <algorithm>
#include <array>
#include <cmath>

#include "activations.hpp"
#include "detector.hpp"
#include "eightfold/error.hpp"
#include "yolo.hpp"

namespace eightfold::detail {
namespace {

// One output, (B, channels, H, W), and where its locations begin among all.
struct Scale {
  std::size_t output;
  std::size_t width;
  std::size_t cells;
  std::size_t channels;
  std::int64_t first;
  float stride_x;
  float stride_y;
};

std::vector<Scale> scales_of(const DecoderInputs& inputs, const std::string& wanted) {
  std::vector<Scale> scales;
  for (std::size_t i = 0; i < inputs.outputs.size(); ++i) {
    const TensorSpec& spec = inputs.outputs[i];
    if (spec.shape.size() != 4 || spec.elements() == 0) wrong_shape(spec, wanted);
    const auto height = static_cast<std::size_t>(spec.shape[2]);
    const auto width = static_cast<std::size_t>(spec.shape[3]);
    scales.push_back(
        {i, width, height * width, static_cast<std::size_t>(spec.shape[1]), 0,
         static_cast<float>(static_cast<double>(inputs.tensor.width) / static_cast<double>(width)),
         static_cast<float>(static_cast<double>(inputs.tensor.height) / static_cast<double>(height))});
  }
  return scales;
}

const Scale& scale_at(const std::vector<Scale>& scales, std::int64_t location) {
  auto scale = scales.begin();
  while (scale + 1 != scales.end() && (scale + 1)->first <= location) ++scale;
  return *scale;
}

// Each side of a box is a distribution over `reg_max` bins (Li et al., NeurIPS 2020).
class YoloDfl : public Head {
 public:
  YoloDfl(const JsonNode& options, const DecoderInputs& inputs)
      : bins_(options.has("reg_max") ? static_cast<std::size_t>(options.at("reg_max").integer(1, kMostBins))
                                     : 16) {
    const std::string wanted = "(B, 4 * " + std::to_string(bins_) + " + classes, H, W)";
    scales_ = scales_of(inputs, wanted);
    std::int64_t first = 0;
    for (Scale& scale : scales_) {
      if (scale.channels <= 4 * bins_) wrong_shape(inputs.outputs[scale.output], wanted);
      scale.first = first;
      first += static_cast<std::int64_t>(scale.cells);
    }
  }

  void list(Row row, const DetectorOptions& options, DecodeScratch& scratch) const override {
    const float filter = logit_filter(options.score_threshold);
    for (const Scale& scale : scales_) {
      const std::size_t classes = scale.channels - 4 * bins_;
      const ScoreMap logits = {row[scale.output].data() + 4 * bins_ * scale.cells, classes, scale.cells,
                               scale.cells, 1};
      find_above(logits, filter, options.multi_label, scratch.found);
      for (const Found& each : scratch.found) {
        const float score = sigmoid(each.value);
        if (!(score > options.score_threshold)) continue;
        const std::int64_t location = scale.first + static_cast<std::int64_t>(each.location);
        scratch.candidates.push_back(
            {score, each.label, location, location * static_cast<std::int64_t>(classes) + each.label});
      }
    }
  }

  Box box(Row row, std::int64_t location) const override {
    const Scale& scale = scale_at(scales_, location);
    const auto cell = static_cast<std::size_t>(location - scale.first);
    const float* sides = row[scale.output].data() + cell;
    const float x = static_cast<float>(cell % scale.width) + 0.5F;
    const float y = static_cast<float>(cell / scale.width) + 0.5F;
    return {(x - distance(sides, 0, scale.cells)) * scale.stride_x,
            (y - distance(sides, 1, scale.cells)) * scale.stride_y,
            (x + distance(sides, 2, scale.cells)) * scale.stride_x,
            (y + distance(sides, 3, scale.cells)) * scale.stride_y};
  }

 private:
  static constexpr std::int64_t kMostBins = 64;

  // The mean of the distribution, in strides.
  float distance(const float* channels, std::size_t side, std::size_t step) const {
    const float* first = channels + side * bins_ * step;
    if (bins_ == 1) return *first;
    std::array<float, kMostBins> bins;
    for (std::size_t i = 0; i < bins_; ++i) bins[i] = first[i * step];
    softmax(bins.data(), bins_);
    float mean = 0;
    for (std::size_t i = 0; i < bins_; ++i) mean += bins[i] * static_cast<float>(i);
    return mean;
  }

  std::size_t bins_;
  std::vector<Scale> scales_;
};

struct Anchor {
  float width;
  float height;
};

// YOLOv3, YOLOv4 and YOLOv5 (Redmon & Farhadi, 2018; Bochkovskiy et al., 2020).
class YoloAnchors : public Head {
 public:
  YoloAnchors(const JsonNode& options, const DecoderInputs& inputs) : scales_(scales_of(inputs, kWanted)) {
    for (const JsonNode& scale : options.at("anchors").items()) anchors_.push_back(anchors_from(scale));
    if (anchors_.size() != scales_.size()) {
      options.at("anchors").fail(std::to_string(anchors_.size()) + " scales",
                                 std::to_string(scales_.size()) + ", one per output");
    }
    read_factors(options);
    if (options.has("class_scores"))
      softmax_ = options.at("class_scores").one_of<bool>({{"sigmoid", false}, {"softmax", true}});
    if (options.has("box")) squared_ = options.at("box").one_of<bool>({{"exp", false}, {"sigmoid", true}});
    std::int64_t first = 0;
    for (std::size_t i = 0; i < scales_.size(); ++i) {
      const std::size_t count = anchors_[i].size();
      const std::size_t channels = scales_[i].channels;
      if (channels % count != 0 || channels < 6 * count) wrong_shape(inputs.outputs[i], kWanted);
      scales_[i].first = first;
      first += static_cast<std::int64_t>(count * scales_[i].cells);
    }
  }

  void list(Row row, const DetectorOptions& options, DecodeScratch& scratch) const override {
    const float filter = logit_filter(options.score_threshold);
    for (std::size_t i = 0; i < scales_.size(); ++i) {
      for (std::size_t anchor = 0; anchor < anchors_[i].size(); ++anchor) {
        list_anchor(row[i].data(), i, anchor, filter, options, scratch);
      }
    }
  }

  Box box(Row row, std::int64_t location) const override {
    const Scale& scale = scale_at(scales_, location);
    const auto local = static_cast<std::size_t>(location - scale.first);
    const std::size_t cell = local % scale.cells;
    const std::size_t index = local / scale.cells;
    const Anchor& anchor = anchors_[scale.output][index];
    const float* values = row[scale.output].data() + index * per_anchor(scale) * scale.cells + cell;
    const float factor = factors_[scale.output];
    const auto shift = static_cast<float>((static_cast<double>(factor) - 1) / 2);
    const auto centre = [&](std::size_t channel, std::size_t grid, float stride) {
      return (sigmoid(values[channel * scale.cells]) * factor - shift + static_cast<float>(grid)) * stride;
    };
    const auto extent = [&](std::size_t channel) {
      const float value = values[channel * scale.cells];
      const float root = 2 * sigmoid(value);
      return squared_ ? root * root : std::exp(value);
    };
    const float x = centre(0, cell % scale.width, scale.stride_x);
    const float y = centre(1, cell / scale.width, scale.stride_y);
    const float half_width = extent(2) * anchor.width / 2;
    const float half_height = extent(3) * anchor.height / 2;
    return {x - half_width, y - half_height, x + half_width, y + half_height};
  }

 private:
  static constexpr const char* kWanted = "(B, anchors * (5 + classes), H, W)";

  static std::vector<Anchor> anchors_from(const JsonNode& scale) {
    std::vector<Anchor> anchors;
    for (const JsonNode& pair : scale.items()) {
      const std::vector<JsonNode> sides = pair.items();
      if (sides.size() != 2) pair.fail("not a pair", "[width, height]");
      anchors.push_back({static_cast<float>(sides[0].number()), static_cast<float>(sides[1].number())});
    }
    if (anchors.empty()) scale.fail("empty", "one anchor or more");
    return anchors;
  }

  void read_factors(const JsonNode& options) {
    factors_.assign(scales_.size(), 1);
    if (!options.has("scale_xy")) return;
    const JsonNode node = options.at("scale_xy");
    if (!node.json().is_array()) {
      factors_.assign(scales_.size(), static_cast<float>(node.number()));
      return;
    }
    const std::vector<JsonNode> items = node.items();
    if (items.size() != scales_.size())
      node.fail(std::to_string(items.size()) + " numbers", "one per output");
    for (std::size_t i = 0; i < items.size(); ++i) factors_[i] = static_cast<float>(items[i].number());
  }

  // Probabilities of the classes of one location, in `shares`.
  static ScoreMap softmax_of(const ScoreMap& logits, std::vector<float>& shares) {
    shares.clear();
    float largest = logits.data[0];
    for (std::size_t i = 1; i < logits.classes; ++i)
      largest = std::max(largest, logits.data[i * logits.class_step]);
    float sum = 0;
    for (std::size_t i = 0; i < logits.classes; ++i) {
      shares.push_back(std::exp(logits.data[i * logits.class_step] - largest));
      sum += shares.back();
    }
    for (float& share : shares) share /= sum;
    return {shares.data(), logits.classes, 1, 1, logits.classes};
  }

  std::size_t per_anchor(const Scale& scale) const { return scale.channels / anchors_[scale.output].size(); }

  // Neither factor alone can be below the threshold when their product is above it: objectness is looked at
  // first.
  void list_anchor(const float* data, std::size_t index, std::size_t anchor, float filter,
                   const DetectorOptions& options, DecodeScratch& scratch) const {
    const Scale& scale = scales_[index];
    const std::size_t classes = per_anchor(scale) - 5;
    const float* first = data + anchor * per_anchor(scale) * scale.cells;
    const float* objectness = first + 4 * scale.cells;
    for (std::size_t cell = 0; cell < scale.cells; ++cell) {
      if (!(objectness[cell] > filter)) continue;
      const float certain = sigmoid(objectness[cell]);
      ScoreMap values = {first + 5 * scale.cells + cell, classes, 1, scale.cells, classes * scale.cells};
      if (softmax_) values = softmax_of(values, scratch.values);
      find_above(values, softmax_ ? options.score_threshold : filter, options.multi_label, scratch.found);
      const auto location = scale.first + static_cast<std::int64_t>(anchor * scale.cells + cell);
      for (const Found& each : scratch.found) {
        const float score = certain * (softmax_ ? each.value : sigmoid(each.value));
        if (!(score > options.score_threshold)) continue;
        scratch.candidates.push_back(
            {score, each.label, location, location * static_cast<std::int64_t>(classes) + each.label});
      }
    }
  }

  std::vector<Scale> scales_;
  std::vector<std::vector<Anchor>> anchors_;
  std::vector<float> factors_;
  bool squared_ = false;
  bool softmax_ = false;
};

}  // namespace

std::unique_ptr<Decoder> make_yolo_dfl(const JsonNode& options, const DecoderInputs& inputs) {
  allow_detector_keys(options, {"reg_max"});
  return make_detector(std::make_unique<YoloDfl>(options, inputs), detector_options_from(options, {}));
}

std::unique_ptr<Decoder> make_yolo_anchors(const JsonNode& options, const DecoderInputs& inputs) {
  allow_detector_keys(options, {"anchors", "box", "class_scores", "scale_xy"});
  return make_detector(std::make_unique<YoloAnchors>(options, inputs), detector_options_from(options, {}));
}

}  // namespace eightfold::detail
