#include <doctest/doctest.h>

#include "fixtures.hpp"
#include "sha256.hpp"

using namespace eightfold::detail;

TEST_CASE("the examples of FIPS 180-4") {
  CHECK(sha256_hex(fixtures::bytes_of("")) ==
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256_hex(fixtures::bytes_of("abc")) ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha256_hex(fixtures::bytes_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")) ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}
