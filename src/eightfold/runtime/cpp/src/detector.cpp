#include "detector.hpp"

#include <algorithm>

#include "eightfold/error.hpp"

namespace eightfold::detail {
namespace {

constexpr std::int64_t kMost = std::int64_t{1} << 31;

class Detector : public Decoder {
 public:
  Detector(std::unique_ptr<Head> head, const DetectorOptions& options)
      : head_(std::move(head)), options_(options) {}

  void decode(span<const Output> outputs, std::size_t index, const Placement& placement,
              DecodeScratch& scratch, Prediction& prediction) const override {
    scratch.row.clear();
    for (std::size_t i = 0; i < outputs.size(); ++i)
      scratch.row.push_back(row_as_floats(outputs[i], i, index, scratch));
    const Row row = scratch.row;
    std::vector<Candidate>& candidates = scratch.candidates;
    candidates.clear();
    head_->list(row, options_, scratch);
    keep_best(candidates, 0, options_.max_candidates);
    std::sort(candidates.begin(), candidates.end(), better);
    scratch.boxes.clear();
    for (const Candidate& each : candidates) {
      scratch.boxes.push_back({head_->box(row, each.location), each.score, each.label, each.location});
    }
    head_->suppress_boxes(row, options_, scratch.boxes);
    prediction.detections.clear();
    for (const ScoredBox& each : scratch.boxes) prediction.detections.push_back(in_image(each, placement));
    head_->add_parts(row, placement, scratch, prediction);
  }

 private:
  static Detection in_image(const ScoredBox& found, const Placement& placement) {
    const auto x = [&](float value) { return static_cast<float>(placement.x_to_image(value)); };
    const auto y = [&](float value) { return static_cast<float>(placement.y_to_image(value)); };
    const Box& box = found.box;
    return {x(box.x1), y(box.y1), x(box.x2), y(box.y2), found.score, found.label};
  }

  std::unique_ptr<Head> head_;
  DetectorOptions options_;
};

}  // namespace

void Head::suppress_boxes(Row, const DetectorOptions& options, std::vector<ScoredBox>& boxes) const {
  const Suppression how = {options.iou_threshold, options.agnostic, options.max_detections};
  if (!options.nms) {
    boxes.resize(std::min(boxes.size(), options.max_detections));
  } else if (options.soft_sigma > 0) {
    suppress_softly(boxes, how, options.soft_sigma, options.score_threshold);
  } else {
    suppress(boxes, how);
  }
}

void Head::add_parts(Row, const Placement&, DecodeScratch&, Prediction&) const {}

DetectorOptions detector_options_from(const JsonNode& options, DetectorOptions result) {
  const auto number = [&](const char* key, float& value, double least, double most) {
    if (!options.has(key)) return;
    const double seen = options.at(key).number();
    if (seen < least || seen > most) options.at(key).fail(std::to_string(seen), "a number in its range");
    value = static_cast<float>(seen);
  };
  const auto count = [&](const char* key, std::size_t& value) {
    if (options.has(key)) value = static_cast<std::size_t>(options.at(key).integer(1, kMost));
  };
  const auto flag = [&](const char* key, bool& value) {
    if (options.has(key)) value = options.at(key).boolean();
  };
  constexpr double any = std::numeric_limits<double>::max();
  number("score_threshold", result.score_threshold, -any, any);
  number("iou_threshold", result.iou_threshold, 0, 1);
  number("soft_sigma", result.soft_sigma, 0, any);
  count("max_candidates", result.max_candidates);
  count("max_detections", result.max_detections);
  flag("multi_label", result.multi_label);
  flag("agnostic", result.agnostic);
  flag("nms", result.nms);
  return result;
}

void allow_detector_keys(const JsonNode& options, std::initializer_list<const char*> own) {
  std::vector<std::string> keys = {
      "score_threshold", "iou_threshold", "max_candidates", "max_detections", "multi_label",
      "agnostic",        "nms",           "soft_sigma"};
  keys.insert(keys.end(), own.begin(), own.end());
  options.allow_keys(keys);
}

std::unique_ptr<Decoder> make_detector(std::unique_ptr<Head> head, const DetectorOptions& options) {
  return std::make_unique<Detector>(std::move(head), options);
}

void wrong_shape(const TensorSpec& spec, const std::string& wanted) {
  std::string shape;
  for (const std::int64_t side : spec.shape) shape += (shape.empty() ? "" : ", ") + std::to_string(side);
  throw Error(ErrorCode::bundle, "output '" + spec.name + "' has shape (" + shape + ")", wanted,
              "choose another decoder");
}

}  // namespace eightfold::detail
