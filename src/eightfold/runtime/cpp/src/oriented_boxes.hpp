// Purpose: turned boxes: their corners, and their overlap as Gaussians.
#pragma once

#include <array>

namespace eightfold::detail {

// Of a size around a centre, turned by an angle in radians from x to y.
struct OrientedBox {
  double x;
  double y;
  double width;
  double height;
  double angle;
};

struct OrientedCorner {
  double x;
  double y;
};
using OrientedCorners = std::array<OrientedCorner, 4>;  // in turn

OrientedCorners corners_of(const OrientedBox& box);

// One minus the Hellinger distance of the boxes as Gaussians, in 0..1 (Llerena et al., ProbIoU, 2021).
double overlap(const OrientedBox& first, const OrientedBox& second);

}  // namespace eightfold::detail
