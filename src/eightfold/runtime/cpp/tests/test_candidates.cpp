#include <doctest/doctest.h>

#include <random>

#include "candidates.hpp"

using namespace eightfold::detail;

TEST_CASE("both orders of axes find the same") {
  constexpr std::size_t classes = 7;
  constexpr std::size_t locations = 53;
  std::mt19937 random(1);
  std::vector<float> by_class(classes * locations);
  std::vector<float> by_location(classes * locations);
  for (std::size_t c = 0; c < classes; ++c) {
    for (std::size_t i = 0; i < locations; ++i) {
      by_class[c * locations + i] = by_location[i * classes + c] =
          static_cast<float>(random() % 8);  // with ties
    }
  }
  const ScoreMap planes = {by_class.data(), classes, locations, locations, 1};
  const ScoreMap rows = {by_location.data(), classes, locations, 1, classes};
  std::vector<Found> first;
  std::vector<Found> second;
  find_above(planes, 5, false, first);
  find_above(rows, 5, false, second);
  REQUIRE(first.size() == second.size());
  for (std::size_t i = 0; i < first.size(); ++i) {
    CHECK(first[i].location == second[i].location);
    CHECK(first[i].label == second[i].label);
  }
  find_above(planes, 5, true, first);
  find_above(rows, 5, true, second);
  REQUIRE(first.size() == second.size());
  for (std::size_t i = 0; i < first.size(); ++i) {
    CHECK(first[i].location == second[i].location);
    CHECK(first[i].label == second[i].label);
  }
}

TEST_CASE("values that are not numbers are no candidates") {
  // As in Python: one NaN among its classes, first or not, and a location is no candidate.
  const std::vector<float> values = {NAN, 1, 1, NAN, NAN, 1};
  std::vector<Found> found;
  for (const bool multi_label : {false, true}) {
    find_above({values.data(), 2, 3, 3, 1}, 0.5F, multi_label, found);
    REQUIRE(found.size() == (multi_label ? 2U : 1U));
    CHECK(found[0].location == 2);
  }
}

TEST_CASE("the best of equals have the lowest numbers") {
  std::vector<Candidate> candidates;
  for (int i = 9; i >= 0; --i) candidates.push_back({1.0F, 0, i, i});
  keep_best(candidates, 0, 3);
  CHECK(candidates.size() == 3);
  for (const Candidate& each : candidates) CHECK(each.number < 3);
}
