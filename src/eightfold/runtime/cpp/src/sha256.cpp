#include "sha256.hpp"

#include <algorithm>
#include <cstring>

#include "sha256_hardware.hpp"

namespace eightfold::detail {
namespace {

std::uint32_t rotate_right(std::uint32_t value, int bits) { return value >> bits | value << (32 - bits); }

std::uint32_t big_endian(const std::uint8_t* bytes) {
  return std::uint32_t{bytes[0]} << 24 | std::uint32_t{bytes[1]} << 16 | std::uint32_t{bytes[2]} << 8 |
         bytes[3];
}

void expand(std::array<std::uint32_t, 64>& words, const std::uint8_t* block) {
  for (int i = 0; i < 16; ++i) words[i] = big_endian(block + 4 * i);
  for (int i = 16; i < 64; ++i) {
    const std::uint32_t a = words[i - 15];
    const std::uint32_t b = words[i - 2];
    const std::uint32_t s0 = rotate_right(a, 7) ^ rotate_right(a, 18) ^ a >> 3;
    const std::uint32_t s1 = rotate_right(b, 17) ^ rotate_right(b, 19) ^ b >> 10;
    words[i] = words[i - 16] + s0 + words[i - 7] + s1;
  }
}

void add_block(std::uint32_t* state, const std::uint8_t* block) {
  std::array<std::uint32_t, 64> words;
  expand(words, block);
  std::array<std::uint32_t, 8> v;
  std::copy_n(state, 8, v.begin());
  for (int i = 0; i < 64; ++i) {
    const std::uint32_t s1 = rotate_right(v[4], 6) ^ rotate_right(v[4], 11) ^ rotate_right(v[4], 25);
    const std::uint32_t choice = (v[4] & v[5]) ^ (~v[4] & v[6]);
    const std::uint32_t t1 = v[7] + s1 + choice + kSha256Constants[i] + words[i];
    const std::uint32_t s0 = rotate_right(v[0], 2) ^ rotate_right(v[0], 13) ^ rotate_right(v[0], 22);
    const std::uint32_t majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
    v = {t1 + s0 + majority, v[0], v[1], v[2], v[3] + t1, v[4], v[5], v[6]};
  }
  for (int i = 0; i < 8; ++i) state[i] += v[i];
}

}  // namespace

void sha256_blocks_portable(std::uint32_t* state, const std::uint8_t* data, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) add_block(state, data + 64 * i);
}

Sha256Blocks sha256_blocks() {
  static const Sha256Blocks chosen =
      has_sha256_instructions() ? &sha256_blocks_hardware : &sha256_blocks_portable;
  return chosen;
}

void Sha256::update(span<const std::uint8_t> data) {
  total_bytes_ += data.size();
  const std::size_t head = pending_bytes_ == 0 ? 0 : std::min(64 - pending_bytes_, data.size());
  if (head > 0) std::memcpy(pending_.data() + pending_bytes_, data.data(), head);
  pending_bytes_ += head;
  if (pending_bytes_ == 64) {
    sha256_blocks()(state_.data(), pending_.data(), 1);
    pending_bytes_ = 0;
  }
  const std::size_t blocks = (data.size() - head) / 64;
  if (blocks > 0) sha256_blocks()(state_.data(), data.data() + head, blocks);
  const std::size_t tail = data.size() - head - 64 * blocks;
  if (tail > 0) std::memcpy(pending_.data(), data.data() + data.size() - tail, tail);
  if (tail > 0) pending_bytes_ = tail;
}

std::string Sha256::hex_digest() {
  const std::uint64_t bits = total_bytes_ * 8;
  // A one bit, zeros up to 8 bytes before the end of a block, then the length in bits, big endian.
  std::array<std::uint8_t, 72> padding = {0x80};
  const std::size_t zeros = (pending_bytes_ < 56 ? 56 : 120) - pending_bytes_;
  for (int i = 0; i < 8; ++i) padding[zeros + i] = static_cast<std::uint8_t>(bits >> (56 - 8 * i));
  update({padding.data(), zeros + 8});

  std::string hex;
  for (const std::uint32_t word : state_) {
    for (int shift = 28; shift >= 0; shift -= 4) hex += "0123456789abcdef"[word >> shift & 15];
  }
  return hex;
}

std::string sha256_hex(span<const std::uint8_t> data) {
  Sha256 digest;
  digest.update(data);
  return digest.hex_digest();
}

}  // namespace eightfold::detail
