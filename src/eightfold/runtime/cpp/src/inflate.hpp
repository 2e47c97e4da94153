// Purpose: decompress raw DEFLATE data (RFC 1951) of a known size.
#pragma once

#include <cstdint>

#include "eightfold/span.hpp"

namespace eightfold::detail {

// Fills `output` exactly. Returns false when the data is damaged, or holds more or less than that; reads and
// writes nothing outside the two spans, whatever the data says.
bool inflate(span<const std::uint8_t> input, span<std::uint8_t> output);

}  // namespace eightfold::detail
