#include <doctest/doctest.h>

#include <random>

#include "fixtures.hpp"
#include "sha256.hpp"
#include "sha256_hardware.hpp"

using namespace eightfold::detail;

TEST_CASE("the examples of FIPS 180-4") {
  CHECK(sha256_hex(fixtures::bytes_of("")) ==
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256_hex(fixtures::bytes_of("abc")) ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha256_hex(fixtures::bytes_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")) ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST_CASE("pieces of any size give the digest of the whole") {
  fixtures::Bytes data(1000);
  std::mt19937 random(1);
  for (auto& byte : data) byte = static_cast<std::uint8_t>(random());
  for (const std::size_t piece : {1U, 3U, 55U, 56U, 63U, 64U, 65U, 128U, 999U}) {
    Sha256 digest;
    for (std::size_t at = 0; at < data.size(); at += piece) {
      digest.update({data.data() + at, std::min(piece, data.size() - at)});
    }
    CHECK(digest.hex_digest() == sha256_hex(data));
  }
}

TEST_CASE("the processor's instructions agree with portable code") {
  if (!has_sha256_instructions()) return;
  fixtures::Bytes data(64 * 17);
  std::mt19937 random(2);
  for (auto& byte : data) byte = static_cast<std::uint8_t>(random());
  std::uint32_t portable[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  std::uint32_t hardware[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  sha256_blocks_portable(portable, data.data(), 17);
  sha256_blocks_hardware(hardware, data.data(), 17);
  for (int i = 0; i < 8; ++i) CHECK(portable[i] == hardware[i]);
}
