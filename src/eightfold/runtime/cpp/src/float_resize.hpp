// Purpose: maps of numbers from the tensor to the image, in double precision: Placement.mask_to_image of
// Python.
#pragma once

#include <vector>

#include "eightfold/preprocess.hpp"

namespace eightfold::detail {

struct FloatMap {
  Size size;
  std::vector<double> values;  // row by row
};

// Bilinear, in half-pixel convention; the border is repeated.
FloatMap resize_map(const FloatMap& map, Size size);

// A map over the tensor, or over a coarser grid of the same extent -> over the image. What the tensor did not
// show is 0.
FloatMap map_to_image(const FloatMap& map, const Placement& placement);

}  // namespace eightfold::detail
