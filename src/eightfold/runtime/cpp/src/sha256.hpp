// Purpose: SHA-256 (FIPS 180-4) of bytes in memory, with the processor's own instructions where it has them.
// Thread safety: an object belongs to one thread at a time.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "eightfold/span.hpp"

namespace eightfold::detail {

class Sha256 {
 public:
  void update(span<const std::uint8_t> data);
  // 64 lower-case hex digits. The object cannot be used afterwards.
  std::string hex_digest();

 private:
  std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::uint8_t, 64> pending_ = {};
  std::size_t pending_bytes_ = 0;
  std::uint64_t total_bytes_ = 0;
};

std::string sha256_hex(span<const std::uint8_t> data);

// The block functions, apart for tests: each adds `count` blocks of 64 bytes to the state.
using Sha256Blocks = void (*)(std::uint32_t* state, const std::uint8_t* data, std::size_t count);
void sha256_blocks_portable(std::uint32_t* state, const std::uint8_t* data, std::size_t count);
// The fastest that this processor runs.
Sha256Blocks sha256_blocks();

}  // namespace eightfold::detail
