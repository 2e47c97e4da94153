#include "float_resize.hpp"

#include <algorithm>

#include "taps.hpp"

namespace eightfold::detail {

namespace {

std::size_t pixels(Size size) {
  return static_cast<std::size_t>(size.height) * static_cast<std::size_t>(size.width);
}

FloatMap resize_columns(const FloatMap& map, int width) {
  const Taps taps = axis_taps(map.size.width, width, Kernel::bilinear, 0, width);
  FloatMap result = {{map.size.height, width}, std::vector<double>(pixels({map.size.height, width}))};
  double* out = result.values.data();
  for (int y = 0; y < map.size.height; ++y) {
    const double* row = map.values.data() + pixels({y, map.size.width});
    for (std::size_t at = 0; at < taps.index.size(); at += 2) {
      *out++ = row[taps.index[at]] * taps.weight[at] + row[taps.index[at + 1]] * taps.weight[at + 1];
    }
  }
  return result;
}

FloatMap resize_rows(const FloatMap& map, int height) {
  const Taps taps = axis_taps(map.size.height, height, Kernel::bilinear, 0, height);
  const int width = map.size.width;
  FloatMap result = {{height, width}, std::vector<double>(pixels({height, width}))};
  double* out = result.values.data();
  for (std::size_t at = 0; at < taps.index.size(); at += 2) {
    const double* above = map.values.data() + pixels({taps.index[at], width});
    const double* below = map.values.data() + pixels({taps.index[at + 1], width});
    for (int x = 0; x < width; ++x) *out++ = above[x] * taps.weight[at] + below[x] * taps.weight[at + 1];
  }
  return result;
}

}  // namespace

FloatMap resize_map(const FloatMap& map, Size size) {
  return resize_rows(resize_columns(map, size.width), size.height);
}

FloatMap map_to_image(const FloatMap& map, const Placement& placement) {
  const bool coarse = map.size.height != placement.tensor.height || map.size.width != placement.tensor.width;
  const FloatMap tensor = coarse ? resize_map(map, placement.tensor) : map;
  const Size shown = placement.resized;
  FloatMap canvas = {shown, std::vector<double>(pixels(shown), 0.0)};
  const int left = std::max(0, -placement.left);
  const int right = std::min(shown.width, placement.tensor.width - placement.left);
  for (int y = std::max(0, -placement.top);
       y < std::min(shown.height, placement.tensor.height - placement.top); ++y) {
    const double* row =
        tensor.values.data() + pixels({y + placement.top, placement.tensor.width}) + placement.left;
    std::copy(row + left, row + right, canvas.values.data() + pixels({y, shown.width}) + left);
  }
  return resize_map(canvas, placement.source);
}

}  // namespace eightfold::detail
