#include <doctest/doctest.h>

#include <string>

#include "fixtures.hpp"
#include "inflate.hpp"

using eightfold::detail::inflate;
using fixtures::Bytes;

namespace {

std::string inflated(const Bytes& data, std::size_t size) {
  Bytes out(size);
  if (!inflate(data, out)) return "damaged";
  return {out.begin(), out.end()};
}

// zlib's raw deflate of "eightfold " eight times: with its own code and as one stored block.
const Bytes kPacked = {0x4b, 0xcd, 0x4c, 0xcf, 0x28, 0x49, 0xcb, 0xcf,
                       0x49, 0x51, 0x48, 0xa5, 0x0a, 0x0b, 0x00};
const Bytes kStored = {0x01, 0x03, 0x00, 0xfc, 0xff, 'a', 'b', 'c'};

}  // namespace

TEST_CASE("blocks with the fixed code, and stored ones") {
  std::string expected;
  for (int i = 0; i < 8; ++i) expected += "eightfold ";
  CHECK(inflated(kPacked, expected.size()) == expected);
  CHECK(inflated(kStored, 3) == "abc");
}

TEST_CASE("another size than stated is damage") {
  CHECK(inflated(kPacked, 79) == "damaged");
  CHECK(inflated(kPacked, 81) == "damaged");
  CHECK(inflated(kStored, 0) == "damaged");
}

TEST_CASE("data cut off anywhere are damage") {
  for (std::size_t size = 0; size + 1 < kPacked.size(); ++size) {
    CHECK(inflated({kPacked.begin(), kPacked.begin() + static_cast<std::ptrdiff_t>(size)}, 80) == "damaged");
  }
}

TEST_CASE("impossible blocks are damage") {
  CHECK(inflated({0x07}, 1) == "damaged");                          // block type 3
  CHECK(inflated({0x01, 0x03, 0x00, 0x00, 0x00}, 3) == "damaged");  // a length without its complement
  CHECK(inflated({0x03 | 0x04, 0xff, 0xff, 0xff}, 9) == "damaged");
}
