#include <doctest/doctest.h>

#include <cmath>

#include "oriented_boxes.hpp"

using namespace eightfold::detail;

namespace {
constexpr double kQuarter = 1.5707963267948966;
}

TEST_CASE("a box overlaps itself wholly and a distant one not at all") {
  const OrientedBox box = {10, 20, 8, 4, 0.3};
  CHECK(overlap(box, box) == doctest::Approx(1).epsilon(1e-3));
  CHECK(overlap(box, {500, 20, 8, 4, 0.3}) == doctest::Approx(0).epsilon(1e-3));
}

TEST_CASE("a quarter turn is the box with its sides exchanged") {
  const OrientedBox box = {10, 20, 8, 4, 0};
  CHECK(overlap(box, {10, 20, 4, 8, kQuarter}) == doctest::Approx(1).epsilon(1e-3));
  CHECK(overlap(box, {10, 20, 8, 4, kQuarter}) < 0.9);
}

TEST_CASE("corners of an upright box and of one turned by an eighth") {
  const OrientedCorners upright = corners_of({10, 20, 8, 4, 0});
  CHECK(upright[0].x == doctest::Approx(14));
  CHECK(upright[0].y == doctest::Approx(22));
  CHECK(upright[2].x == doctest::Approx(6));
  CHECK(upright[2].y == doctest::Approx(18));
  const OrientedCorners turned = corners_of({0, 0, 2, 2, kQuarter / 2});
  CHECK(turned[0].x == doctest::Approx(0).epsilon(1e-9));
  CHECK(turned[0].y == doctest::Approx(std::sqrt(2.0)));
}
