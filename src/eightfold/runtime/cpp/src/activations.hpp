// Purpose: functions on scores that several decoders share, in the forms that docs/decoders.md defines.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

namespace eightfold::detail {

// By way of tanh, which saturates where exp would overflow.
inline float sigmoid(float logit) { return 0.5F * (1 + std::tanh(0.5F * logit)); }

// What sigmoid turns into `probability`, less a slack: a filter on logits may let a little too much through,
// rounding of the sigmoid decides at the exact threshold.
inline float logit_filter(double probability) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  if (probability <= 0) return -infinity;
  if (probability >= 1) return infinity;
  return static_cast<float>(std::log(probability / (1 - probability)) - 1e-3);
}

// In place; subtracts the largest entry first.
inline void softmax(float* values, std::size_t count) {
  const float largest = *std::max_element(values, values + count);
  float sum = 0;
  for (std::size_t i = 0; i < count; ++i) sum += values[i] = std::exp(values[i] - largest);
  for (std::size_t i = 0; i < count; ++i) values[i] /= sum;
}

}  // namespace eightfold::detail
