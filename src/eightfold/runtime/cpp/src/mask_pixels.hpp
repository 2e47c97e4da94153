// Purpose: from the cells of a mask to the pixels of the image, bilinear between cells.
#pragma once

#include <algorithm>
#include <vector>

#include "eightfold/prediction.hpp"
#include "eightfold/preprocess.hpp"

namespace eightfold::detail {

// A stretch of the tensor, in its pixels, that the cells of one axis cover; `border` more cells lie on each
// side of it.
struct CellAxis {
  double low;
  double high;
  int cells;
  int border;
};

// Of the image pixels of one axis: the cell before each, and the share of the one behind it.
struct CellTaps {
  std::vector<int> before;
  std::vector<double> share;
  int low = 0;   // the first cell that any pixel reads,
  int high = 0;  // and one beyond the last

  int wide() const { return high - low; }
};

struct MaskTaps {
  CellTaps rows;
  CellTaps columns;
};

// Sets the part of the image that a mask covers, and makes room for its values. False where it is empty.
bool place_mask(const Detection& found, InstanceMask& mask);
MaskTaps taps_of(const InstanceMask& mask, const CellAxis& rows, const CellAxis& columns,
                 const Placement& placement);
// Marks the pixels whose value is above the threshold. `cells` are those from the taps' low to high, row by
// row.
void paint(const float* cells, const MaskTaps& taps, double threshold, InstanceMask& mask);

}  // namespace eightfold::detail
