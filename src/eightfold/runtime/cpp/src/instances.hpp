// Purpose: detections with more than an upright box: masks, keypoints, turned boxes.
#pragma once

#include <memory>

#include "decoder.hpp"
#include "json_reader.hpp"

namespace eightfold::detail {

std::unique_ptr<Decoder> make_rcnn_masks(const JsonNode& options, const DecoderInputs& inputs);
std::unique_ptr<Decoder> make_yolo_masks(const JsonNode& options, const DecoderInputs& inputs);
std::unique_ptr<Decoder> make_yolo_keypoints(const JsonNode& options, const DecoderInputs& inputs);
std::unique_ptr<Decoder> make_yolo_oriented(const JsonNode& options, const DecoderInputs& inputs);

}  // namespace eightfold::detail
