#include <algorithm>

#include "eightfold/manifest.hpp"

namespace eightfold {

std::optional<Size> size_of(const Artifact& artifact, Layout layout) {
  if (artifact.inputs.size() != 1 || artifact.inputs[0].shape.size() != 4) return std::nullopt;
  const std::vector<std::int64_t>& shape = artifact.inputs[0].shape;
  const std::size_t first = layout == Layout::nchw ? 2 : 1;
  const auto is_side = [](std::int64_t side) { return side >= 1 && side <= kLargestSide; };
  if (!is_side(shape[first]) || !is_side(shape[first + 1])) return std::nullopt;
  return Size{static_cast<int>(shape[first]), static_cast<int>(shape[first + 1])};
}

std::vector<Size> sizes_of(const Manifest& manifest) {
  std::vector<Size> sizes;
  for (const Artifact& artifact : manifest.artifacts) {
    const std::optional<Size> size = size_of(artifact, manifest.preprocess.layout);
    if (size && std::find(sizes.begin(), sizes.end(), *size) == sizes.end()) sizes.push_back(*size);
  }
  return sizes;
}

}  // namespace eightfold
