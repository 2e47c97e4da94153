#include "finite.hpp"

#include <algorithm>
#include <array>
#include <cmath>

namespace eightfold::detail {

// Sums side by side, for the vectoriser. Any of them is not finite if a number is not; it can overflow
// without that, so only then is each number looked at.
bool all_finite(const float* values, std::size_t count) {
  constexpr std::size_t lanes = 32;
  std::array<float, lanes> sums = {};
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    for (std::size_t k = 0; k < lanes; ++k) sums[k] += values[i + k];
  }
  for (; i < count; ++i) sums[0] += values[i];
  float total = 0;
  for (const float sum : sums) total += sum;
  const auto finite = [](float value) { return std::isfinite(value); };
  return finite(total) || std::all_of(values, values + count, finite);
}

}  // namespace eightfold::detail
