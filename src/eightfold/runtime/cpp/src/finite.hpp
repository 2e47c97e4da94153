// Purpose: find NaN and infinity in tensors, at about the speed of reading them.
#pragma once

#include <cstddef>

namespace eightfold::detail {

bool all_finite(const float* values, std::size_t count);

}  // namespace eightfold::detail
