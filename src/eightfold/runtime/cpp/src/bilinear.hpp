// Purpose: the inner loop of bilinear resizing, in single precision, for images of 3 or 4 bytes per pixel.
// Its result is right unless the value lies so near to a half that rounding error could have moved it across:
// such pixels are listed, for the caller to compute again in double precision.
#pragma once

#include <cstdint>

namespace eightfold::detail {

struct BilinearRow {
  const std::uint8_t* top;  // the two source rows
  const std::uint8_t* bottom;
  float down;                  // weight of the bottom row
  const std::int32_t* offset;  // per output pixel: bytes from a row's begin to the left source pixel
  const float*
      weights;      // per output pixel: four times the weight of the left one, four times of the right one
  int pixel_bytes;  // 3 or 4; the first three are resized
  float margin;     // how near to a half is too near; 0: single precision is exact
};
constexpr int kBilinearWeights = 8;  // floats per output pixel

// Output pixels [0, count): 3 bytes each to `out`, which has room for one byte more; indices of pixels to
// repeat to `doubtful`, which has room for all. Reads 8 bytes from each offset of both rows. Returns how many
// are doubtful.
using BilinearFunction = int (*)(const BilinearRow& row, int count, std::uint8_t* out,
                                 std::int32_t* doubtful);

int bilinear_row_portable(const BilinearRow& row, int count, std::uint8_t* out, std::int32_t* doubtful);
// The fastest that this processor runs.
BilinearFunction bilinear_row();

}  // namespace eightfold::detail
