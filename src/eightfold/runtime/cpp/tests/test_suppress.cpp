#include <doctest/doctest.h>

#include <cmath>

#include "suppress.hpp"

using namespace eightfold::detail;

namespace {
const ScoredBox kFirst = {{0, 0, 10, 10}, 0.9F, 0};
const ScoredBox kOverlapping = {{1, 0, 11, 10}, 0.8F, 0};
const ScoredBox kOtherClass = {{1, 0, 11, 10}, 0.7F, 1};
const ScoredBox kApart = {{20, 20, 30, 30}, 0.6F, 0};
}  // namespace

TEST_CASE("intersection over union") {
  CHECK(iou({0, 0, 2, 2}, {1, 1, 3, 3}) == doctest::Approx(1.0 / 7));
  CHECK(iou({0, 0, 0, 0}, {0, 0, 0, 0}) == 0);
  CHECK(iou({0, 0, 1, 1}, {5, 5, 6, 6}) == 0);
}

TEST_CASE("hard suppression, by class and across") {
  std::vector<ScoredBox> boxes = {kFirst, kOverlapping, kOtherClass, kApart};
  suppress(boxes, {0.5F, false, 10});
  REQUIRE(boxes.size() == 3);
  CHECK(boxes[1].label == 1);
  boxes = {kFirst, kOverlapping, kOtherClass, kApart};
  suppress(boxes, {0.5F, true, 10});
  CHECK(boxes.size() == 2);
  boxes = {kFirst, kOverlapping, kOtherClass, kApart};
  suppress(boxes, {0.5F, true, 1});
  CHECK(boxes.size() == 1);
}

TEST_CASE("soft suppression lowers scores") {
  std::vector<ScoredBox> boxes = {kFirst, kOverlapping, kApart};
  suppress_softly(boxes, {0.5F, false, 10}, 0.5F, 0.01F);
  REQUIRE(boxes.size() == 3);
  CHECK(boxes[1].score == kApart.score);
  const float overlap = iou(kFirst.box, kOverlapping.box);
  CHECK(boxes[2].score == doctest::Approx(0.8 * std::exp(-overlap * overlap / 0.5)));
  suppress_softly(boxes, {0.5F, false, 10}, 0.5F, 0.5F);
  CHECK(boxes.size() == 2);
}
