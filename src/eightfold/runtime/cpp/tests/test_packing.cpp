#include <doctest/doctest.h>

#include <numeric>

#include "packing.hpp"

using eightfold::detail::pack;

TEST_CASE("the fewest padded rows, then the fewest calls") {
  CHECK(pack(7, {1, 2, 4, 8}) == std::vector<int>{4, 2, 1});
  CHECK(pack(7, {4, 8}) == std::vector<int>{8});
  CHECK(pack(1, {16}) == std::vector<int>{16});
  CHECK(pack(9, {4, 6}) == std::vector<int>{6, 4});
  CHECK(pack(1000003, {8, 1}).size() == 125000 + 3);
}

TEST_CASE("only the last may be partly filled") {
  for (int count = 1; count < 200; ++count) {
    const std::vector<int> parts = pack(count, {3, 5, 16});
    const int total = std::accumulate(parts.begin(), parts.end(), 0);
    CHECK(total >= count);
    CHECK(total - parts.back() < count);
  }
}
