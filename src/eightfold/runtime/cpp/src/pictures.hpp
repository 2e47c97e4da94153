// Purpose: answers that are pictures: depth, and images that a network made.
#pragma once

#include <memory>

#include "decoder.hpp"
#include "json_reader.hpp"

namespace eightfold::detail {

std::unique_ptr<Decoder> make_depth(const JsonNode& options, const DecoderInputs& inputs);
std::unique_ptr<Decoder> make_picture(const JsonNode& options, const DecoderInputs& inputs);

}  // namespace eightfold::detail
