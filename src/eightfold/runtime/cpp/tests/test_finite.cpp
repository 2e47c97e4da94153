#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "finite.hpp"

using namespace eightfold;

TEST_CASE("every NaN and infinity is found, wherever it is, and nothing else") {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  for (const std::size_t count : {1U, 31U, 32U, 33U, 100U}) {
    // The largest numbers, whose sum would overflow, zeros of both signs, and the smallest.
    std::vector<float> values(count, std::numeric_limits<float>::max());
    values[count / 2] = -0.0F;
    values[count / 3] = std::numeric_limits<float>::denorm_min();
    CHECK(detail::all_finite(values.data(), count));
    for (std::size_t at = 0; at < count; ++at) {
      for (const float wrong : {NAN, -NAN, infinity, -infinity}) {
        std::vector<float> spoilt = values;
        spoilt[at] = wrong;
        CHECK_FALSE(detail::all_finite(spoilt.data(), count));
      }
    }
  }
  CHECK(detail::all_finite(nullptr, 0));
}

TEST_CASE("of other types, only half precision can hold something else") {
  const std::vector<std::uint16_t> halves = {0x7bff, 0x8000,
                                             0x0001};  // the largest, minus zero, the smallest
  CHECK(detail::all_finite(halves.data(), 6, DataType::float16));
  for (const std::uint16_t wrong : {0x7c00, 0xfc00, 0x7e00}) {
    CHECK_FALSE(detail::all_finite(&wrong, 2, DataType::float16));
    CHECK(detail::all_finite(&wrong, 2, DataType::uint8));
  }
}
