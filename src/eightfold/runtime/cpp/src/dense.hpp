// Purpose: answers for every pixel: segmentation and matting.
#pragma once

#include <memory>

#include "decoder.hpp"
#include "json_reader.hpp"

namespace eightfold::detail {

std::unique_ptr<Decoder> make_segmenter(const JsonNode& options, const DecoderInputs& inputs);
std::unique_ptr<Decoder> make_matte(const JsonNode& options, const DecoderInputs& inputs);

}  // namespace eightfold::detail
