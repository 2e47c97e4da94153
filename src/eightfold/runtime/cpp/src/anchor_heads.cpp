#include "anchor_heads.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "activations.hpp"
#include "anchors.hpp"
#include "detector.hpp"
#include "eightfold/error.hpp"

namespace eightfold::detail {
namespace {

constexpr std::int64_t kLargestGrid = 1 << 14;
constexpr std::int64_t kMost = std::int64_t{1} << 31;

std::size_t output_named(const JsonNode& options, const DecoderInputs& inputs, const char* option,
                         const char* name) {
  const std::string wanted = options.has(option) ? options.at(option).string() : name;
  std::string there;
  for (std::size_t i = 0; i < inputs.outputs.size(); ++i) {
    if (inputs.outputs[i].name == wanted) return i;
    there += (there.empty() ? "" : ", ") + inputs.outputs[i].name;
  }
  throw Error(ErrorCode::bundle, "the decoder wants output '" + wanted + "'", there,
              "name the outputs in the task's options");
}

std::vector<double> numbers_from(const JsonNode& node) {
  return node.each<double>([](const JsonNode& item) { return item.number(); });
}

Levels levels_from(const JsonNode& node, std::size_t count) {
  Levels levels = node.each<std::vector<double>>(numbers_from);
  if (levels.size() != count)
    node.fail(std::to_string(levels.size()) + " levels", std::to_string(count) + ", as grids");
  return levels;
}

std::vector<Size> grids_from(const JsonNode& node) {
  return node.each<Size>([](const JsonNode& item) {
    const std::vector<JsonNode> sides = item.items();
    if (sides.size() != 2) item.fail("not a pair", "[height, width]");
    return Size{static_cast<int>(sides[0].integer(1, kLargestGrid)),
                static_cast<int>(sides[1].integer(1, kLargestGrid))};
  });
}

std::size_t limit_from(const JsonNode& options, const char* key, std::size_t otherwise) {
  return options.has(key) ? static_cast<std::size_t>(options.at(key).integer(1, kMost)) : otherwise;
}

struct Weights {
  std::array<float, 4> values;
};

Weights weights_from(const JsonNode& options, Weights weights) {
  if (!options.has("weights")) return weights;
  const std::vector<double> given = numbers_from(options.at("weights"));
  if (given.size() != 4) options.at("weights").fail(std::to_string(given.size()) + " numbers", "4");
  for (std::size_t i = 0; i < 4; ++i) weights.values[i] = static_cast<float>(given[i]);
  return weights;
}

Box clipped(const Box& box, Size tensor) {
  const auto width = static_cast<float>(tensor.width);
  const auto height = static_cast<float>(tensor.height);
  return {std::clamp(box.x1, 0.0F, width), std::clamp(box.y1, 0.0F, height), std::clamp(box.x2, 0.0F, width),
          std::clamp(box.y2, 0.0F, height)};
}

// Faster R-CNN's parametrization (Ren et al., NIPS 2015, eq. 2), clipped to the tensor.
Box box_from_deltas(const float* deltas, const Box& anchor, const Weights& weights, Size tensor) {
  // exp of more than this would make a box larger than any image; the same constant as torchvision's.
  static const auto largest_log = static_cast<float>(std::log(1000.0 / 16));
  const float width = anchor.x2 - anchor.x1;
  const float height = anchor.y2 - anchor.y1;
  const float x = deltas[0] / weights.values[0] * width + (anchor.x1 + 0.5F * width);
  const float y = deltas[1] / weights.values[1] * height + (anchor.y1 + 0.5F * height);
  const float half_width = std::exp(std::min(deltas[2] / weights.values[2], largest_log)) * width / 2;
  const float half_height = std::exp(std::min(deltas[3] / weights.values[3], largest_log)) * height / 2;
  return clipped({x - half_width, y - half_height, x + half_width, y + half_height}, tensor);
}

// Raw class scores (N, C) and deltas (N, 4) relative to N reference boxes.
class AnchorHead : public Head {
 protected:
  AnchorHead(const JsonNode& options, const DecoderInputs& inputs)
      : grids(grids_from(options.at("grids"))),
        tensor(inputs.tensor),
        scores_output(output_named(options, inputs, "scores_output", "cls_logits")),
        boxes_output(output_named(options, inputs, "boxes_output", "bbox_regression")) {
    const TensorSpec& scores = inputs.outputs[scores_output];
    const TensorSpec& boxes = inputs.outputs[boxes_output];
    if (scores.shape.size() != 3) wrong_shape(scores, "(B, N, classes)");
    count = static_cast<std::size_t>(scores.shape[1]);
    classes = static_cast<std::size_t>(scores.shape[2]);
    if (boxes.shape.size() != 3 || boxes.shape[1] != scores.shape[1] || boxes.shape[2] != 4) {
      wrong_shape(boxes, "(B, " + std::to_string(count) + ", 4) beside scores (B, N, classes)");
    }
  }

  void set_anchors(std::vector<Box> boxes) {
    if (boxes.size() != count) {
      throw Error(ErrorCode::bundle, "the options give " + std::to_string(boxes.size()) + " anchors",
                  std::to_string(count) + ", as the scores");
    }
    anchors = std::move(boxes);
  }

  // Where each level's locations end.
  std::vector<std::int64_t> level_ends() const {
    std::vector<std::int64_t> cells;
    for (const Size& grid : grids) {
      cells.push_back((cells.empty() ? 0 : cells.back()) + std::int64_t{grid.height} * grid.width);
    }
    const std::int64_t per_cell = cells.empty() ? 0 : static_cast<std::int64_t>(count) / cells.back();
    for (std::int64_t& end : cells) end *= per_cell;
    return cells;
  }

  std::vector<Size> grids;
  Size tensor;
  std::size_t scores_output;
  std::size_t boxes_output;
  std::size_t count;
  std::size_t classes;
  std::vector<Box> anchors;
};

class Ssd : public AnchorHead {
 public:
  Ssd(const JsonNode& options, const DecoderInputs& inputs)
      : AnchorHead(options, inputs),
        weights_(weights_from(options, {{10, 10, 5, 5}})),
        class_candidates_(limit_from(options, "class_candidates", 400)) {
    DefaultBoxes definition;
    definition.ratios = levels_from(options.at("aspect_ratios"), grids.size());
    definition.scales = numbers_from(options.at("scales"));
    if (definition.scales.size() != grids.size() + 1)
      options.at("scales").fail("too few or many", "one more than grids");
    if (options.has("steps") && !options.at("steps").is_null()) {
      definition.steps = numbers_from(options.at("steps"));
      if (definition.steps.size() != grids.size())
        options.at("steps").fail("too few or many", "as many as grids");
    }
    definition.clip = !options.has("clip") || options.at("clip").boolean();
    set_anchors(default_boxes(grids, definition, tensor));
    if (classes < 2) wrong_shape(inputs.outputs[scores_output], "(B, N, 1 + classes)");
  }

  // Class 0 is background (Liu et al., ECCV 2016).
  void list(Row row, const DetectorOptions& options, DecodeScratch& scratch) const override {
    std::vector<float>& scores = scratch.values;
    scores.assign(row[scores_output].begin(), row[scores_output].end());
    for (std::size_t i = 0; i < count; ++i) softmax(scores.data() + i * classes, classes);
    for (std::size_t label = 1; label < classes; ++label) {
      const std::size_t first = scratch.candidates.size();
      for (std::size_t i = 0; i < count; ++i) {
        const float score = scores[i * classes + label];
        if (!(score > options.score_threshold)) continue;
        scratch.candidates.push_back({score, static_cast<std::int32_t>(label - 1),
                                      static_cast<std::int64_t>(i),
                                      static_cast<std::int64_t>(i * (classes - 1) + label - 1)});
      }
      keep_best(scratch.candidates, first, class_candidates_);
    }
  }

  Box box(Row row, std::int64_t location) const override {
    const auto at = static_cast<std::size_t>(location);
    return box_from_deltas(row[boxes_output].data() + 4 * at, anchors[at], weights_, tensor);
  }

 private:
  Weights weights_;
  std::size_t class_candidates_;
};

// The candidates of RetinaNet and FCOS: sigmoid scores, times something of the location, the best of each
// level.
class LevelHead : public AnchorHead {
 protected:
  LevelHead(const JsonNode& options, const DecoderInputs& inputs)
      : AnchorHead(options, inputs),
        level_ends_(level_ends()),
        level_candidates_(limit_from(options, "level_candidates", 1000)) {}

  template <typename Score>
  void list_levels(Row row, float filter, float threshold, DecodeScratch& scratch,
                   const Score& score_of) const {
    std::size_t location = 0;
    for (const std::int64_t end : level_ends_) {
      const std::size_t first = scratch.candidates.size();
      for (; location < static_cast<std::size_t>(end); ++location) {
        const float* logits = row[scores_output].data() + location * classes;
        for (std::size_t label = 0; label < classes; ++label) {
          if (!(logits[label] > filter)) continue;
          const float score = score_of(logits[label], location);
          if (!(score > threshold)) continue;
          scratch.candidates.push_back({score, static_cast<std::int32_t>(label),
                                        static_cast<std::int64_t>(location),
                                        static_cast<std::int64_t>(location * classes + label)});
        }
      }
      keep_best(scratch.candidates, first, level_candidates_);
    }
  }

 private:
  std::vector<std::int64_t> level_ends_;
  std::size_t level_candidates_;
};

class RetinaNet : public LevelHead {
 public:
  RetinaNet(const JsonNode& options, const DecoderInputs& inputs)
      : LevelHead(options, inputs), weights_(weights_from(options, {{1, 1, 1, 1}})) {
    set_anchors(grid_anchors(grids, levels_from(options.at("sizes"), grids.size()),
                             levels_from(options.at("aspect_ratios"), grids.size()), tensor));
  }

  void list(Row row, const DetectorOptions& options, DecodeScratch& scratch) const override {
    list_levels(row, logit_filter(options.score_threshold), options.score_threshold, scratch,
                [](float logit, std::size_t) { return sigmoid(logit); });
  }

  Box box(Row row, std::int64_t location) const override {
    const auto at = static_cast<std::size_t>(location);
    return box_from_deltas(row[boxes_output].data() + 4 * at, anchors[at], weights_, tensor);
  }

 private:
  Weights weights_;
};

// Distances from the centre, scores weighed by centre-ness (Tian et al., ICCV 2019).
class Fcos : public LevelHead {
 public:
  Fcos(const JsonNode& options, const DecoderInputs& inputs)
      : LevelHead(options, inputs),
        centerness_output_(output_named(options, inputs, "centerness_output", "bbox_ctrness")) {
    const bool given = options.has("aspect_ratios") && !options.at("aspect_ratios").is_null();
    const Levels ratios =
        given ? levels_from(options.at("aspect_ratios"), grids.size()) : Levels(grids.size(), {1.0});
    set_anchors(grid_anchors(grids, levels_from(options.at("sizes"), grids.size()), ratios, tensor));
    const TensorSpec& spec = inputs.outputs[centerness_output_];
    if (spec.elements() != count * static_cast<std::size_t>(spec.shape[0])) wrong_shape(spec, "(B, N, 1)");
  }

  void list(Row row, const DetectorOptions& options, DecodeScratch& scratch) const override {
    const float* centerness = row[centerness_output_].data();
    // The square root of a product of two numbers below 1: neither may be below the threshold squared.
    const double filter = static_cast<double>(options.score_threshold) * options.score_threshold;
    list_levels(row, logit_filter(filter), options.score_threshold, scratch,
                [&](float logit, std::size_t location) {
                  return std::sqrt(sigmoid(logit) * sigmoid(centerness[location]));
                });
  }

  Box box(Row row, std::int64_t location) const override {
    const auto at = static_cast<std::size_t>(location);
    const float* sides = row[boxes_output].data() + 4 * at;
    const Box& anchor = anchors[at];
    const float width = anchor.x2 - anchor.x1;
    const float height = anchor.y2 - anchor.y1;
    const float x = 0.5F * (anchor.x1 + anchor.x2);
    const float y = 0.5F * (anchor.y1 + anchor.y2);
    return clipped({x - sides[0] * width, y - sides[1] * height, x + sides[2] * width, y + sides[3] * height},
                   tensor);
  }

 private:
  std::size_t centerness_output_;
};

DetectorOptions anchor_options_from(const JsonNode& options, DetectorOptions defaults) {
  defaults.multi_label = true;
  const DetectorOptions chosen = detector_options_from(options, defaults);
  if (!chosen.multi_label) options.at("multi_label").fail("false", "true: this head always is");
  return chosen;
}

}  // namespace

std::unique_ptr<Decoder> make_ssd(const JsonNode& options, const DecoderInputs& inputs) {
  allow_detector_keys(options, {"grids", "aspect_ratios", "scales", "steps", "clip", "weights",
                                "class_candidates", "scores_output", "boxes_output"});
  DetectorOptions defaults;
  defaults.score_threshold = 0.01F;
  defaults.max_detections = 200;
  return make_detector(std::make_unique<Ssd>(options, inputs), anchor_options_from(options, defaults));
}

std::unique_ptr<Decoder> make_retinanet(const JsonNode& options, const DecoderInputs& inputs) {
  allow_detector_keys(options, {"grids", "sizes", "aspect_ratios", "weights", "level_candidates",
                                "scores_output", "boxes_output"});
  DetectorOptions defaults;
  defaults.score_threshold = 0.05F;
  defaults.iou_threshold = 0.5F;
  return make_detector(std::make_unique<RetinaNet>(options, inputs), anchor_options_from(options, defaults));
}

std::unique_ptr<Decoder> make_fcos(const JsonNode& options, const DecoderInputs& inputs) {
  allow_detector_keys(options, {"grids", "sizes", "aspect_ratios", "level_candidates", "scores_output",
                                "boxes_output", "centerness_output"});
  DetectorOptions defaults;
  defaults.score_threshold = 0.2F;
  defaults.iou_threshold = 0.6F;
  defaults.max_detections = 100;
  return make_detector(std::make_unique<Fcos>(options, inputs), anchor_options_from(options, defaults));
}

}  // namespace eightfold::detail
