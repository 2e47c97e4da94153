// Purpose: detectors with a head over all levels: SSD, RetinaNet and FCOS, as torchvision decodes them.
#pragma once

#include <memory>

#include "decoder.hpp"
#include "json_reader.hpp"

namespace eightfold::detail {

std::unique_ptr<Decoder> make_ssd(const JsonNode& options, const DecoderInputs& inputs);
std::unique_ptr<Decoder> make_retinanet(const JsonNode& options, const DecoderInputs& inputs);
std::unique_ptr<Decoder> make_fcos(const JsonNode& options, const DecoderInputs& inputs);

}  // namespace eightfold::detail
