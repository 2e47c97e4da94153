#include "decoder.hpp"

#include <cstring>
#include <map>

#include "anchor_heads.hpp"
#include "classify.hpp"
#include "decode_scratch.hpp"
#include "dense.hpp"
#include "eightfold/error.hpp"
#include "instances.hpp"
#include "json_reader.hpp"
#include "pictures.hpp"
#include "yolo.hpp"

namespace eightfold::detail {
namespace {

float float_from_half(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000U) << 16U;
  const std::uint32_t exponent = half >> 10U & 0x1fU;
  const std::uint32_t fraction = half & 0x3ffU;
  std::uint32_t bits = 0;
  if (exponent == 0x1f) {
    bits = sign | 0x7f800000U | fraction << 13U;
  } else if (exponent != 0) {
    bits = sign | (exponent + 112) << 23U | fraction << 13U;
  } else {  // zero or subnormal: exact in float
    const float value = static_cast<float>(fraction) * 0x1p-24F;
    return sign != 0 ? -value : value;
  }
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <typename T>
void convert(const void* data, std::size_t first, std::vector<float>& out) {
  const T* values = static_cast<const T*>(data) + first;
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(values[i]);
}

void convert_as(DataType type, const void* data, std::size_t first, std::vector<float>& out) {
  switch (type) {
    case DataType::float32:
      return convert<float>(data, first, out);
    case DataType::int8:
      return convert<std::int8_t>(data, first, out);
    case DataType::int32:
      return convert<std::int32_t>(data, first, out);
    case DataType::int64:
      return convert<std::int64_t>(data, first, out);
    case DataType::float16: {
      const auto* values = static_cast<const std::uint16_t*>(data) + first;
      for (std::size_t i = 0; i < out.size(); ++i) out[i] = float_from_half(values[i]);
      return;
    }
    default:
      return convert<std::uint8_t>(data, first, out);
  }
}

// The outputs are for run_tensors; a run on images has nothing to decode.
class AsTheyAre : public Decoder {
 public:
  void decode(span<const Output>, std::size_t, const Placement&, DecodeScratch&, Prediction&) const override {
  }
};

}  // namespace

span<const float> row_as_floats(const Output& output, std::size_t index, std::size_t row,
                                DecodeScratch& scratch) {
  const std::size_t count = output.spec->elements() / static_cast<std::size_t>(output.spec->shape[0]);
  if (output.spec->type == DataType::float32)
    return {static_cast<const float*>(output.data) + row * count, count};
  if (scratch.converted.size() <= index) scratch.converted.resize(index + 1);
  std::vector<float>& converted = scratch.converted[index];
  converted.resize(count);
  convert_as(output.spec->type, output.data, row * count, converted);
  return {converted.data(), count};
}

std::size_t output_of(const DecoderInputs& inputs, const std::string& name) {
  const std::vector<TensorSpec>& outputs = inputs.outputs;
  if (name.empty() && outputs.size() == 1) return 0;
  std::string names;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i].name == name) return i;
    names += (names.empty() ? "" : ", ") + outputs[i].name;
  }
  throw Error(ErrorCode::bundle,
              name.empty() ? std::to_string(outputs.size()) + " outputs where the decoder wants one"
                           : "the decoder wants output '" + name + "'",
              names, "name the output in the task's options");
}

std::unique_ptr<Decoder> decoder_of(const Task& task, const DecoderInputs& inputs) {
  using Make = std::unique_ptr<Decoder> (*)(const JsonNode&, const DecoderInputs&);
  static const std::map<std::string, Make> makers = {{"classify", &make_classifier},
                                                     {"depth", &make_depth},
                                                     {"end-to-end", &make_end_to_end},
                                                     {"fcos", &make_fcos},
                                                     {"matte", &make_matte},
                                                     {"picture", &make_picture},
                                                     {"rcnn-masks", &make_rcnn_masks},
                                                     {"retinanet", &make_retinanet},
                                                     {"segment", &make_segmenter},
                                                     {"ssd", &make_ssd},
                                                     {"yolo-anchors", &make_yolo_anchors},
                                                     {"yolo-boxes", &make_yolo_boxes},
                                                     {"yolo-dfl", &make_yolo_dfl},
                                                     {"yolo-grid", &make_yolo_grid},
                                                     {"yolo-keypoints", &make_yolo_keypoints},
                                                     {"yolo-masks", &make_yolo_masks},
                                                     {"yolo-oriented", &make_yolo_oriented}};
  const nlohmann::json document = parse_json(task.options, "the decoder's options");
  const JsonNode options(document, "decoder '" + task.decode + "'");
  const auto maker = makers.find(task.decode);
  if (maker != makers.end()) return maker->second(options, inputs);
  if (task.decode == "tensors") return std::make_unique<AsTheyAre>();
  std::string known = "tensors";
  for (const auto& [name, make] : makers) known += ", " + name;
  throw Error(ErrorCode::bundle, "unknown decoder '" + task.decode + "'", known,
              "use a runtime as new as what made the bundle");
}

}  // namespace eightfold::detail
