#include "candidates.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "simd.hpp"

namespace eightfold::detail {
namespace {

// Locations whose running maxima stay in the first-level cache while the classes stream by.
constexpr std::size_t kBlock = 1024;

EIGHTFOLD_ALWAYS_INLINE void raise_loop(float* best, const float* plane, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) best[i] = plane[i] > best[i] ? plane[i] : best[i];
}
EIGHTFOLD_TWICE(raise_to, (float* best, const float* plane, std::size_t count),
                raise_loop(best, plane, count))

EIGHTFOLD_ALWAYS_INLINE void relabel_loop(float* best, std::int32_t* label, const float* plane,
                                          std::int32_t name, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const bool higher = plane[i] > best[i];
    best[i] = higher ? plane[i] : best[i];
    label[i] = higher ? name : label[i];
  }
}
EIGHTFOLD_TWICE(relabel,
                (float* best, std::int32_t* label, const float* plane, std::int32_t name, std::size_t count),
                relabel_loop(best, label, plane, name, count))

// What a location has above the threshold. Where any of its values is NaN it has nothing.
void take(const ScoreMap& scores, std::size_t location, float threshold, bool multi_label,
          std::vector<Found>& found) {
  const float* column = scores.data + location * scores.location_step;
  const std::size_t before = found.size();
  Found best = {location, 0, column[0]};
  for (std::size_t index = 0; index < scores.classes; ++index) {
    const float value = column[index * scores.class_step];
    if (std::isnan(value)) return found.resize(before);
    const auto label = static_cast<std::int32_t>(index);
    if (multi_label && value > threshold) found.push_back({location, label, value});
    if (value > best.value) best = {location, label, value};
  }
  if (!multi_label && best.value > threshold) found.push_back(best);
}

// Class by class over neighbours in memory. Few locations pass, and only for those the classes are told
// apart.
void find_in_planes(const ScoreMap& scores, float threshold, bool multi_label, std::vector<Found>& found) {
  std::array<float, kBlock> best;
  for (std::size_t first = 0; first < scores.locations; first += kBlock) {
    const std::size_t count = std::min(kBlock, scores.locations - first);
    std::copy_n(scores.data + first, count, best.data());
    for (std::size_t index = 1; index < scores.classes; ++index) {
      raise_to(best.data(), scores.data + index * scores.class_step + first, count);
    }
    for (std::size_t i = 0; i < count; ++i) {
      if (best[i] > threshold) take(scores, first + i, threshold, multi_label, found);
    }
  }
}

}  // namespace

void best_classes(const ScoreMap& scores, BestClasses& best) {
  best.score.resize(scores.locations);
  best.label.assign(scores.locations, 0);
  for (std::size_t first = 0; first < scores.locations; first += kBlock) {
    const std::size_t count = std::min(kBlock, scores.locations - first);
    std::copy_n(scores.data + first, count, &best.score[first]);
    for (std::size_t index = 1; index < scores.classes; ++index) {
      relabel(&best.score[first], &best.label[first], scores.data + index * scores.class_step + first,
              static_cast<std::int32_t>(index), count);
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

void find_above(const ScoreMap& scores, float threshold, bool multi_label, std::vector<Found>& found) {
  found.clear();
  if (scores.classes == 0) return;
  if (scores.location_step == 1) return find_in_planes(scores, threshold, multi_label, found);
  for (std::size_t i = 0; i < scores.locations; ++i) take(scores, i, threshold, multi_label, found);
}

}  // namespace eightfold::detail
