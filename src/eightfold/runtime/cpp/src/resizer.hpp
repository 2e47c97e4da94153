// Purpose: resize one image row by row to samples of its type, exactly as the double-precision definition
// says, mostly in single precision: what lies too near to a half is computed again in double. Thread safety:
// a Resizer belongs to one thread at a time; make() again when sizes change, which allocates little.
#pragma once

#include <cstdint>
#include <vector>

#include "bilinear.hpp"
#include "eightfold/preprocess.hpp"
#include "eightfold/span.hpp"
#include "taps.hpp"

namespace eightfold::detail {

// Interleaved samples of 8 or 16 bits. The first `channels` samples of each pixel are resized.
struct Pixels {
  const std::uint8_t* data = nullptr;
  Size size;
  std::size_t row_bytes = 0;
  int pixel_bytes = 0;
  int channels = 0;
  PixelType type = PixelType::uint8;
};

// Rows and columns of the resized image that are wanted.
struct Window {
  int top = 0;
  int bottom = 0;
  int left = 0;
  int right = 0;
};

inline bool operator==(const Window& a, const Window& b) {
  return a.top == b.top && a.bottom == b.bottom && a.left == b.left && a.right == b.right;
}

class Resizer {
 public:
  // Prepares for images of this kind; does nothing when already prepared for it.
  void prepare(const Pixels& kind, Size resized, const Window& window, Kernel kernel);
  // One row of the window: (right - left) pixels of `channels` samples, valid until the next call. The image
  // must be of the kind prepared for.
  const std::uint8_t* row(const Pixels& image, int y);

 private:
  enum class Way { copy, bilinear, separable };

  void prepare_bilinear(const Pixels& kind);
  void bilinear(const Pixels& image, int y);
  void bilinear_exactly(const BilinearRow& work, const double* down, span<const std::int32_t> columns);
  template <typename Sample>
  void separable(const Pixels& image, int y);
  template <typename Sample>
  void blend_rows(const Pixels& image, int y);
  template <typename Sample>
  Sample exact(const Pixels& image, int x, int y, int channel) const;
  int columns() const { return window_.right - window_.left; }

  Pixels kind_;
  Size resized_;
  Window window_;
  Kernel kernel_ = Kernel::bilinear;
  Way way_ = Way::copy;
  Taps across_;
  Taps down_;
  float margin_ = 0;
  std::vector<std::uint8_t> row_;
  // Bilinear: the columns that the fast loop may do are [0, fast_end_).
  int fast_end_ = 0;
  std::vector<std::int32_t> offset_;
  std::vector<std::int16_t> weights_;
  std::vector<std::int32_t> doubtful_;
  // Separable: the blend of source rows, for the source columns from first_column_ on.
  int first_column_ = 0;
  std::vector<float> blended_;
  std::vector<float> across_weight_;
};

}  // namespace eightfold::detail
