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
  BestClasses best;
  std::vector<Found> first;
  std::vector<Found> second;
  find_above(planes, 5, false, best, first);
  find_above(rows, 5, false, best, second);
  REQUIRE(first.size() == second.size());
  for (std::size_t i = 0; i < first.size(); ++i) {
    CHECK(first[i].location == second[i].location);
    CHECK(first[i].label == second[i].label);
  }
  find_above(planes, 5, true, best, first);
  find_above(rows, 5, true, best, second);
  CHECK(first.size() == second.size());
}

TEST_CASE("values that are not numbers are no candidates") {
  const std::vector<float> values = {NAN, 1, NAN, NAN};
  BestClasses best;
  std::vector<Found> found;
  find_above({values.data(), 2, 2, 2, 1}, 0.5F, true, best, found);
  REQUIRE(found.size() == 1);
  CHECK(found[0].location == 1);
}

TEST_CASE("the best of equals have the lowest numbers") {
  std::vector<Candidate> candidates;
  for (int i = 9; i >= 0; --i) candidates.push_back({1.0F, 0, i, i});
  keep_best(candidates, 0, 3);
  CHECK(candidates.size() == 3);
  for (const Candidate& each : candidates) CHECK(each.number < 3);
}
