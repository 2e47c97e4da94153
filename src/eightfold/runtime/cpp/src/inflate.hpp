// Purpose: decompress raw DEFLATE data of a known size, through zlib.
#pragma once

#include <cstdint>

#include "eightfold/span.hpp"

namespace eightfold::detail {

// Fills `output` exactly. Returns false when the data is damaged, or holds more or less than that.
bool inflate(span<const std::uint8_t> input, span<std::uint8_t> output);

}  // namespace eightfold::detail
