// Purpose: classification: the likeliest classes of one output shaped (batch, classes).
#pragma once

#include <memory>

#include "decoder.hpp"
#include "json_reader.hpp"

namespace eightfold::detail {

// Options: k, activation.
std::unique_ptr<Decoder> make_classifier(const JsonNode& options, const DecoderInputs& inputs);

}  // namespace eightfold::detail
