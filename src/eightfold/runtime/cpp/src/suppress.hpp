// Purpose: non-maximum suppression.
#pragma once

#include <cstdint>
#include <vector>

namespace eightfold::detail {

struct Box {
  float x1;
  float y1;
  float x2;
  float y2;
};

struct ScoredBox {
  Box box;
  float score;
  std::int32_t label;
  std::int64_t location = 0;  // of its candidate
};

struct Suppression {
  float iou_threshold;
  bool agnostic;  // boxes of different classes compete as well
  std::size_t limit;
};

// Intersection over union; 0 where the union is empty.
float iou(const Box& a, const Box& b);

// Greedy: of boxes that are given best first, keeps those that no better one kept before overlaps.
void suppress(std::vector<ScoredBox>& boxes, const Suppression& how);

// Gaussian soft-NMS (Bodla et al., ICCV 2017): overlap lowers a score instead of ending it.
void suppress_softly(std::vector<ScoredBox>& boxes, const Suppression& how, float sigma,
                     float score_threshold);

}  // namespace eightfold::detail
