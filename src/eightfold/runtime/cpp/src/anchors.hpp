// Purpose: reference boxes of anchor-based detectors, as torchvision lays them out.
#pragma once

#include <vector>

#include "eightfold/preprocess.hpp"
#include "suppress.hpp"

namespace eightfold::detail {

using Levels = std::vector<std::vector<double>>;

// torchvision's AnchorGenerator: corners in tensor pixels, level by level, cell by cell. `sizes` and `ratios`
// (height / width) are per level.
std::vector<Box> grid_anchors(const std::vector<Size>& grids, const Levels& sizes, const Levels& ratios,
                              Size tensor);

// torchvision's DefaultBoxGenerator (Liu et al., SSD, ECCV 2016).
struct DefaultBoxes {
  std::vector<double> scales;  // one more than levels, as fractions of the tensor
  Levels ratios;               // per level; each gives a box and its turned twin
  std::vector<double> steps;   // pixels between cells per level; empty: spread evenly
  bool clip;                   // limit widths and heights to the tensor
};
std::vector<Box> default_boxes(const std::vector<Size>& grids, const DefaultBoxes& definition, Size tensor);

}  // namespace eightfold::detail
