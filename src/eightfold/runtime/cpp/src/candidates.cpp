#include "candidates.hpp"

#include <algorithm>

namespace eightfold::detail {
namespace {

void find_best(const ScoreMap& scores, float threshold, BestClasses& best, std::vector<Found>& found) {
  if (scores.location_step == 1) {
    best_classes(scores, best);
    for (std::size_t i = 0; i < scores.locations; ++i) {
      if (best.score[i] > threshold) found.push_back({i, best.label[i], best.score[i]});
    }
    return;
  }
  for (std::size_t i = 0; i < scores.locations; ++i) {
    const float* row = scores.data + i * scores.location_step;
    std::size_t label = 0;
    for (std::size_t index = 1; index < scores.classes; ++index) {
      if (row[index * scores.class_step] > row[label * scores.class_step]) label = index;
    }
    const float value = row[label * scores.class_step];
    if (value > threshold) found.push_back({i, static_cast<std::int32_t>(label), value});
  }
}

}  // namespace

void best_classes(const ScoreMap& scores, BestClasses& best) {
  best.score.assign(scores.data, scores.data + scores.locations);
  best.label.assign(scores.locations, 0);
  // Class by class: the inner loop is over neighbours in memory and vectorises.
  float* score = best.score.data();
  std::int32_t* label = best.label.data();
  for (std::size_t index = 1; index < scores.classes; ++index) {
    const float* plane = scores.data + index * scores.class_step;
    const auto name = static_cast<std::int32_t>(index);
    for (std::size_t i = 0; i < scores.locations; ++i) {
      const bool higher = plane[i] > score[i];
      score[i] = higher ? plane[i] : score[i];
      label[i] = higher ? name : label[i];
    }
  }
}

void keep_best(std::vector<Candidate>& candidates, std::size_t first, std::size_t count) {
  if (candidates.size() - first <= count) return;
  const auto begin = candidates.begin() + static_cast<std::ptrdiff_t>(first);
  const auto end = begin + static_cast<std::ptrdiff_t>(count);
  std::nth_element(begin, end, candidates.end(), better);
  candidates.erase(end, candidates.end());
}

void find_above(const ScoreMap& scores, float threshold, bool multi_label, BestClasses& best,
                std::vector<Found>& found) {
  found.clear();
  if (scores.locations == 0 || scores.classes == 0) return;
  if (!multi_label) return find_best(scores, threshold, best, found);
  const bool by_class = scores.location_step == 1;
  const std::size_t outer = by_class ? scores.classes : scores.locations;
  const std::size_t inner = by_class ? scores.locations : scores.classes;
  const std::size_t outer_step = by_class ? scores.class_step : scores.location_step;
  const std::size_t inner_step = by_class ? 1 : scores.class_step;
  for (std::size_t i = 0; i < outer; ++i) {
    const float* row = scores.data + i * outer_step;
    for (std::size_t j = 0; j < inner; ++j) {
      const float value = row[j * inner_step];
      if (value > threshold)
        found.push_back({by_class ? j : i, static_cast<std::int32_t>(by_class ? i : j), value});
    }
  }
}

}  // namespace eightfold::detail
