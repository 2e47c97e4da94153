// `yolo-boxes`, and what other heads of such rows share.
#include "yolo_rows.hpp"

#include "eightfold/error.hpp"
#include "yolo.hpp"

namespace eightfold::detail {

YoloRows::YoloRows(const JsonNode& options, const DecoderInputs& inputs, RowShape shape) : shape_(shape) {
  const auto flag = [&](const char* key) { return options.has(key) && options.at(key).boolean(); };
  channels_last_ = flag("channels_last");
  objectness_ = flag("objectness");
  if (flag("normalized")) {
    unit_x_ = static_cast<float>(inputs.tensor.width);
    unit_y_ = static_cast<float>(inputs.tensor.height);
  }
  const TensorSpec& output = inputs.outputs[shape.output];
  const bool flat = output.shape.size() == 3;
  const auto channels = flat ? static_cast<std::size_t>(output.shape[channels_last_ ? 2 : 1]) : 0;
  if (channels <= first_class() + shape.further) {
    const std::string more = shape.further > 0 ? " + " + std::to_string(shape.further) : "";
    wrong_shape(output, "(B, " + std::to_string(first_class()) + " + classes" + more +
                            ", N), or turned round with channels_last");
  }
  channels_ = channels;
  locations_ = static_cast<std::size_t>(output.shape[channels_last_ ? 1 : 2]);
}

void YoloRows::list(Row row, const DetectorOptions& options, DecodeScratch& scratch) const {
  const ScoreMap scores = {row[shape_.output].data() + first_class() * channel_step(), classes(), locations_,
                           channel_step(), location_step()};
  // A product with an objectness of at most 1 never exceeds the class score alone.
  find_above(scores, options.score_threshold, options.multi_label, scratch.found);
  for (const Found& each : scratch.found) {
    const float score = objectness_ ? each.value * value(row, each.location, 4) : each.value;
    if (!(score > options.score_threshold)) continue;
    const auto location = static_cast<std::int64_t>(each.location);
    scratch.candidates.push_back(
        {score, each.label, location, location * static_cast<std::int64_t>(classes()) + each.label});
  }
}

Box YoloRows::box(Row row, std::int64_t location) const {
  const auto at = [&](std::size_t channel) {
    return value(row, static_cast<std::size_t>(location), channel);
  };
  const float half_width = at(2) / 2;
  const float half_height = at(3) / 2;
  return {(at(0) - half_width) * unit_x_, (at(1) - half_height) * unit_y_, (at(0) + half_width) * unit_x_,
          (at(1) + half_height) * unit_y_};
}

void require_one_output(const DecoderInputs& inputs, const char* decoder) {
  if (inputs.outputs.size() == 1) return;
  throw Error(ErrorCode::bundle, "the model has " + std::to_string(inputs.outputs.size()) + " outputs",
              std::string("one for '") + decoder + "'", "choose another decoder");
}

std::unique_ptr<Decoder> make_yolo_boxes(const JsonNode& options, const DecoderInputs& inputs) {
  allow_detector_keys(options, {"channels_last", "objectness", "normalized"});
  require_one_output(inputs, "yolo-boxes");
  return make_detector(std::make_unique<YoloRows>(options, inputs, RowShape{}),
                       detector_options_from(options, {}));
}

std::size_t only_output_of_rank(const DecoderInputs& inputs, std::size_t rank, const std::string& wanted) {
  std::size_t count = 0;
  std::size_t found = 0;
  for (std::size_t i = 0; i < inputs.outputs.size(); ++i) {
    if (inputs.outputs[i].shape.size() != rank || inputs.outputs[i].elements() == 0) continue;
    ++count;
    found = i;
  }
  if (count == 1) return found;
  throw Error(ErrorCode::bundle, "the model has " + std::to_string(count) + " outputs " + wanted, "one",
              "choose another decoder");
}

}  // namespace eightfold::detail
