// Purpose: resampling as weighted sums of input pixels along one axis, as defined at the head of
// calib/resize.py. The weights are the same doubles as there, so that every pixel is rounded the same way.
#pragma once

#include <vector>

#include "eightfold/preprocess.hpp"

namespace eightfold::detail {

enum class Kernel { bilinear, bicubic, area, bilinear_antialias, bicubic_antialias };

Kernel kernel_of(const Preprocess& preprocess, bool grows);

// The sums of output pixels [begin, end) of an axis: pixel i takes index[(i - begin) * count + k], k < count.
struct Taps {
  int count = 0;
  std::vector<int> index;
  std::vector<double> weight;

  double largest_weight_sum() const;
  // Whether sums of bytes with these weights, along two axes, carry no rounding error in single precision.
  bool exact_in_float() const;
};

Taps axis_taps(int old_size, int new_size, Kernel kernel, int begin, int end);

}  // namespace eightfold::detail
