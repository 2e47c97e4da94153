#include "mask_pixels.hpp"

#include <cmath>

namespace eightfold::detail {
namespace {

struct ImageAxis {
  int first;
  int count;
  double scale;
  int offset;
};

CellTaps taps_of_axis(const ImageAxis& image, const CellAxis& axis) {
  const int last = axis.cells + 2 * axis.border - 1;
  CellTaps taps;
  for (int i = image.first; i < image.first + image.count; ++i) {
    const double centre = (i + 0.5) * image.scale + image.offset;
    const double place = (centre - axis.low) * axis.cells / (axis.high - axis.low) - 0.5 + axis.border;
    const double cut = place > 0 ? std::min<double>(place, last) : 0;  // 0 for NaN, too
    taps.before.push_back(static_cast<int>(cut));
    taps.share.push_back(cut - taps.before.back());
  }
  if (image.count > 0) {
    taps.low = taps.before.front();
    taps.high = std::min(taps.before.back() + 1, last) + 1;
  }
  return taps;
}

// A coordinate of a box in the image -> the first pixel at or behind it; 0 for NaN.
int pixel_from(float coordinate) { return coordinate > 0 ? static_cast<int>(std::ceil(coordinate)) : 0; }

}  // namespace

bool place_mask(const Detection& found, InstanceMask& mask) {
  mask.left = pixel_from(found.x1);
  mask.top = pixel_from(found.y1);
  mask.width = std::max(pixel_from(found.x2) - mask.left, 0);
  mask.height = std::max(pixel_from(found.y2) - mask.top, 0);
  mask.values.resize(static_cast<std::size_t>(mask.width) * static_cast<std::size_t>(mask.height));
  return !mask.values.empty();
}

MaskTaps taps_of(const InstanceMask& mask, const CellAxis& rows, const CellAxis& columns,
                 const Placement& placement) {
  const auto scale = [](int resized, int source) { return static_cast<double>(resized) / source; };
  return {taps_of_axis({mask.top, mask.height, scale(placement.resized.height, placement.source.height),
                        placement.top},
                       rows),
          taps_of_axis(
              {mask.left, mask.width, scale(placement.resized.width, placement.source.width), placement.left},
              columns)};
}

void paint(const float* cells, const MaskTaps& taps, double threshold, InstanceMask& mask) {
  const CellTaps& rows = taps.rows;
  const CellTaps& columns = taps.columns;
  std::uint8_t* out = mask.values.data();
  for (std::size_t y = 0; y < rows.before.size(); ++y) {
    const int above = rows.before[y] - rows.low;
    const float* top = cells + above * columns.wide();
    const float* bottom = cells + std::min(above + 1, rows.wide() - 1) * columns.wide();
    for (std::size_t x = 0; x < columns.before.size(); ++x) {
      const int left = columns.before[x] - columns.low;
      const int right = std::min(left + 1, columns.wide() - 1);
      const double across = columns.share[x];
      const double upper = top[left] * (1 - across) + top[right] * across;
      const double lower = bottom[left] * (1 - across) + bottom[right] * across;
      *out++ = upper * (1 - rows.share[y]) + lower * rows.share[y] > threshold ? 1 : 0;
    }
  }
}

}  // namespace eightfold::detail
