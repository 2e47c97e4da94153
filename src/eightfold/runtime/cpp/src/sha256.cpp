#include "sha256.hpp"

#include <openssl/evp.h>

#include <array>

#include "eightfold/error.hpp"

namespace eightfold::detail {

std::string sha256_hex(span<const std::uint8_t> data) {
  std::array<unsigned char, 32> digest = {};
  if (EVP_Digest(data.data(), data.size(), digest.data(), nullptr, EVP_sha256(), nullptr) != 1)
    throw Error(ErrorCode::internal, "OpenSSL computes no SHA-256", "an OpenSSL with its default provider");
  std::string hex;
  for (const unsigned char byte : digest) {
    hex += "0123456789abcdef"[byte >> 4U];
    hex += "0123456789abcdef"[byte & 15U];
  }
  return hex;
}

}  // namespace eightfold::detail
