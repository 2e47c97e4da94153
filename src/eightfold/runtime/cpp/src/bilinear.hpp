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
  const std::int16_t*
      weights;      // per output pixel: of the left and the right one, by turns, over a denominator
  float scale;      // one over that denominator
  int pixel_bytes;  // 3 or 4; the first three are resized
  float margin;     // how near to a half is too near; 0: single precision is exact
};
constexpr int kBilinearWeights = 8;     // per output pixel: two, four times
constexpr int kBilinearReadBytes = 16;  // from each offset of both rows
constexpr int kBilinearSlack = 4;       // bytes that may be written beyond the last pixel

// Output pixels [0, count): 3 bytes each to `out`, and a little more; indices of pixels to repeat to
// `doubtful`, which has room for all and kBilinearSlack more: some may be listed twice. Returns how many are
// doubtful.
using BilinearFunction = int (*)(const BilinearRow& row, int count, std::uint8_t* out,
                                 std::int32_t* doubtful);

int bilinear_row_portable(const BilinearRow& row, int count, std::uint8_t* out, std::int32_t* doubtful);
// The fastest that this processor runs.
BilinearFunction bilinear_row();

}  // namespace eightfold::detail
