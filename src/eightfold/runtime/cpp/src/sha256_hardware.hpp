// Purpose: SHA-256 blocks through the instructions of x86 (SHA-NI) and of Armv8 (the crypto extension, which
// every Jetson since the TX1 has). About five times as fast as portable code: a bundle's start-up is mostly
// hashing.
#pragma once

#include <cstddef>
#include <cstdint>

namespace eightfold::detail {

extern const std::uint32_t kSha256Constants[64];

bool has_sha256_instructions();
// To be called only where has_sha256_instructions().
void sha256_blocks_hardware(std::uint32_t* state, const std::uint8_t* data, std::size_t count);

}  // namespace eightfold::detail
