#include "suppress.hpp"

#include <algorithm>
#include <cmath>

namespace eightfold::detail {
namespace {

float area(const Box& box) { return (box.x2 - box.x1) * (box.y2 - box.y1); }

bool compete(const ScoredBox& a, const ScoredBox& b, bool agnostic) { return agnostic || a.label == b.label; }

}  // namespace

float iou(const Box& a, const Box& b) {
  const float width = std::max(std::min(a.x2, b.x2) - std::max(a.x1, b.x1), 0.0F);
  const float height = std::max(std::min(a.y2, b.y2) - std::max(a.y1, b.y1), 0.0F);
  const float intersection = width * height;
  const float united = area(a) + area(b) - intersection;
  return united > 0 ? intersection / united : 0;
}

void suppress(std::vector<ScoredBox>& boxes, const Suppression& how) {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < boxes.size() && kept < how.limit; ++i) {
    const ScoredBox candidate = boxes[i];
    const auto drops = [&](const ScoredBox& better) {
      return compete(better, candidate, how.agnostic) && iou(better.box, candidate.box) > how.iou_threshold;
    };
    const auto end = boxes.begin() + static_cast<std::ptrdiff_t>(kept);
    if (std::none_of(boxes.begin(), end, drops)) boxes[kept++] = candidate;
  }
  boxes.resize(kept);
}

void suppress_softly(std::vector<ScoredBox>& boxes, const Suppression& how, float sigma,
                     float score_threshold) {
  const auto higher = [](const ScoredBox& a, const ScoredBox& b) { return a.score < b.score; };
  std::size_t kept = 0;
  for (; kept < boxes.size() && kept < how.limit; ++kept) {
    const auto first = boxes.begin() + static_cast<std::ptrdiff_t>(kept);
    const auto best = std::max_element(first, boxes.end(), higher);  // the first among equals
    if (!(best->score > score_threshold)) break;
    std::rotate(first, best, best + 1);  // the others keep their order
    for (auto other = first + 1; other != boxes.end(); ++other) {
      if (!compete(*first, *other, how.agnostic)) continue;
      const float overlap = iou(first->box, other->box);
      other->score *= std::exp(-(overlap * overlap) / sigma);
    }
  }
  boxes.resize(kept);
}

}  // namespace eightfold::detail
