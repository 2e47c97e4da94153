// Purpose: SHA-256 of bytes in memory, through OpenSSL.
#pragma once

#include <cstdint>
#include <string>

#include "eightfold/span.hpp"

namespace eightfold::detail {

// 64 lower-case hex digits. Throws Error (internal) where OpenSSL is set up without SHA-256.
std::string sha256_hex(span<const std::uint8_t> data);

}  // namespace eightfold::detail
