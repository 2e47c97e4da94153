// Purpose: the YOLO family: raw heads with anchors or distributions, decoded boxes, and end-to-end heads.
#pragma once

#include <memory>

#include "decoder.hpp"
#include "json_reader.hpp"

namespace eightfold::detail {

std::unique_ptr<Decoder> make_yolo_boxes(const JsonNode& options, const DecoderInputs& inputs);
std::unique_ptr<Decoder> make_yolo_dfl(const JsonNode& options, const DecoderInputs& inputs);
std::unique_ptr<Decoder> make_yolo_anchors(const JsonNode& options, const DecoderInputs& inputs);
std::unique_ptr<Decoder> make_yolo_grid(const JsonNode& options, const DecoderInputs& inputs);
std::unique_ptr<Decoder> make_end_to_end(const JsonNode& options, const DecoderInputs& inputs);

}  // namespace eightfold::detail
