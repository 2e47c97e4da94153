// Purpose: find NaN and infinity in tensors, at about the speed of reading them.
#pragma once

#include <cstddef>

#include "eightfold/manifest.hpp"

namespace eightfold::detail {

bool all_finite(const float* values, std::size_t count);
// Of any type: only float32 and float16 can hold something else.
bool all_finite(const void* data, std::size_t bytes, DataType type);

}  // namespace eightfold::detail
