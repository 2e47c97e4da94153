#include "anchors.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace eightfold::detail {
namespace {

// Ratio by ratio, and size by size within it; single precision throughout, as torch computes them.
std::vector<Box> base_anchors(const std::vector<double>& sizes, const std::vector<double>& ratios) {
  std::vector<Box> anchors;
  for (const double ratio : ratios) {
    const float height_factor = std::sqrt(static_cast<float>(ratio));
    const float width_factor = 1 / height_factor;
    for (const double size : sizes) {
      const float width = width_factor * static_cast<float>(size);
      const float height = height_factor * static_cast<float>(size);
      anchors.push_back({std::nearbyint(-width / 2), std::nearbyint(-height / 2), std::nearbyint(width / 2),
                         std::nearbyint(height / 2)});
    }
  }
  return anchors;
}

using Pair = std::pair<double, double>;  // width and height

std::vector<Pair> pairs_of(double scale, double following, const std::vector<double>& ratios) {
  const double between = std::sqrt(scale * following);
  std::vector<Pair> pairs = {{scale, scale}, {between, between}};
  for (const double ratio : ratios) {
    const double longer = scale * std::sqrt(ratio);
    const double shorter = scale / std::sqrt(ratio);
    pairs.emplace_back(longer, shorter);
    pairs.emplace_back(shorter, longer);
  }
  return pairs;
}

}  // namespace

std::vector<Box> grid_anchors(const std::vector<Size>& grids, const Levels& sizes, const Levels& ratios,
                              Size tensor) {
  std::vector<Box> anchors;
  for (std::size_t level = 0; level < grids.size(); ++level) {
    const std::vector<Box> base = base_anchors(sizes[level], ratios[level]);
    const Size grid = grids[level];
    for (int cell = 0; cell < grid.height * grid.width; ++cell) {
      const auto x = static_cast<float>(cell % grid.width * (tensor.width / grid.width));
      const auto y = static_cast<float>(cell / grid.width * (tensor.height / grid.height));
      for (const Box& box : base) anchors.push_back({x + box.x1, y + box.y1, x + box.x2, y + box.y2});
    }
  }
  return anchors;
}

std::vector<Box> default_boxes(const std::vector<Size>& grids, const DefaultBoxes& definition, Size tensor) {
  std::vector<Box> boxes;
  for (std::size_t level = 0; level < grids.size(); ++level) {
    std::vector<Pair> pairs =
        pairs_of(definition.scales[level], definition.scales[level + 1], definition.ratios[level]);
    if (definition.clip) {
      for (auto& [width, height] : pairs)
        width = std::clamp(width, 0.0, 1.0), height = std::clamp(height, 0.0, 1.0);
    }
    const Size grid = grids[level];
    const bool stepped = !definition.steps.empty();
    const double columns = stepped ? tensor.width / definition.steps[level] : grid.width;
    const double rows = stepped ? tensor.height / definition.steps[level] : grid.height;
    for (int cell = 0; cell < grid.height * grid.width; ++cell) {
      const double x = (cell % grid.width + 0.5) / columns;
      const double y = (cell / grid.width + 0.5) / rows;
      for (const auto& [width, height] : pairs) {
        boxes.push_back({static_cast<float>((x - width / 2) * tensor.width),
                         static_cast<float>((y - height / 2) * tensor.height),
                         static_cast<float>((x + width / 2) * tensor.width),
                         static_cast<float>((y + height / 2) * tensor.height)});
      }
    }
  }
  return boxes;
}

}  // namespace eightfold::detail
