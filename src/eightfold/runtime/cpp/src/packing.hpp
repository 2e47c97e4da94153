// Purpose: cut N images into the batch sizes that a bundle has.
#pragma once

#include <vector>

namespace eightfold::detail {

// The batches to run for `count` images: the fewest padded rows, and among those the fewest calls. Largest
// first; only the last may be partly filled.
std::vector<int> pack(int count, const std::vector<int>& batches);

}  // namespace eightfold::detail
