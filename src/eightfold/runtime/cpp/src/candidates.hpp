// Purpose: the candidates of a detector: which locations and classes have a score worth a box.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace eightfold::detail {

struct Candidate {
  float score;
  std::int32_t label;
  std::int64_t location;  // through all outputs in their order
  std::int64_t number;    // orders candidates of equal score
};

inline bool better(const Candidate& a, const Candidate& b) {
  return a.score != b.score ? a.score > b.score : a.number < b.number;
}

// Keeps the best `count` of those from `first` on, in any order.
void keep_best(std::vector<Candidate>& candidates, std::size_t first, std::size_t count);

// Scores of `classes` x `locations`, in either order of axes.
struct ScoreMap {
  const float* data;
  std::size_t classes;
  std::size_t locations;
  std::size_t class_step;     // floats from class to class,
  std::size_t location_step;  // and from location to location
};

struct BestClasses {
  std::vector<float> score;
  std::vector<std::int32_t> label;
};

struct Found {
  std::size_t location;
  std::int32_t label;
  float value;
};

// The best class of every location, the lowest among equals, where locations are neighbours in memory.
void best_classes(const ScoreMap& scores, BestClasses& best);

// The values above the threshold (strictly), location by location: every class of a location where
// `multi_label`, else its best one, the lowest among equals. A location with a NaN has none.
void find_above(const ScoreMap& scores, float threshold, bool multi_label, std::vector<Found>& found);

}  // namespace eightfold::detail
