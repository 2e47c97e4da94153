#include "bilinear.hpp"

#include <algorithm>
#include <cmath>

#include "simd.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace eightfold::detail {
namespace {

#if defined(__x86_64__)

constexpr int kAtOnce = 4;

// Two output pixels from one source row, times the weights' denominator: exact. One pixel lies in each half
// of the register.
EIGHTFOLD_AVX2 inline __m256 two_columns(const std::uint8_t* row, const std::int32_t* offset, __m256i spread,
                                         __m256i weights) {
  const auto bytes = [&](int pixel) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + offset[pixel]));
  };
  const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(bytes(0)), bytes(1), 1);
  return _mm256_cvtepi32_ps(_mm256_madd_epi16(_mm256_shuffle_epi8(both, spread), weights));
}

struct RowConstants {
  __m256i spread;  // the two neighbours of each channel side by side, as 16-bit numbers
  __m256 down;
  __m256 scale;
  __m256 bias;
};

EIGHTFOLD_AVX2 inline __m256 two_pixels(const BilinearRow& row, int x, const RowConstants& constants) {
  const __m256i weights =
      _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row.weights + kBilinearWeights * x));
  const __m256 top = two_columns(row.top, row.offset + x, constants.spread, weights);
  const __m256 bottom = two_columns(row.bottom, row.offset + x, constants.spread, weights);
  const __m256 blended = _mm256_fmadd_ps(_mm256_sub_ps(bottom, top), constants.down, top);
  return _mm256_fmadd_ps(blended, constants.scale, constants.bias);
}

// A value is doubtful when rounding it with the margin added gives something else than with the margin taken
// away. `sure` has eight bits per pixel, of the first, the third, the second and the fourth, as packing
// leaves them.
int list_doubtful(unsigned sure, int x, std::int32_t* doubtful) {
  int doubts = 0;
  const int places[kAtOnce] = {0, 16, 8, 24};
  for (int pixel = 0; pixel < kAtOnce; ++pixel) {
    if ((sure >> places[pixel] & 0xffU) != 0xffU) doubtful[doubts++] = x + pixel;
  }
  return doubts;
}

EIGHTFOLD_AVX2 int bilinear_row_avx2(const BilinearRow& row, int count, std::uint8_t* out,
                                     std::int32_t* doubtful) {
  if (count < kAtOnce) return bilinear_row_portable(row, count, out, doubtful);
  const char right = static_cast<char>(row.pixel_bytes);
  const __m128i spread =
      _mm_setr_epi8(0, -1, right, -1, 1, -1, right + 1, -1, 2, -1, right + 2, -1, -1, -1, -1, -1);
  const RowConstants constants = {_mm256_broadcastsi128_si256(spread), _mm256_set1_ps(row.down),
                                  _mm256_set1_ps(row.scale), _mm256_set1_ps(0.5F - row.margin)};
  const __m256 twice_margin = _mm256_set1_ps(2 * row.margin);
  const __m128i gather = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
  int doubts = 0;
  // The last ones are done with some of their neighbours once more.
  for (int next = 0; next < count; next += kAtOnce) {
    const int x = std::min(next, count - kAtOnce);
    const __m256 first = two_pixels(row, x, constants);
    const __m256 second = two_pixels(row, x + 2, constants);
    const __m256i low = _mm256_packs_epi32(_mm256_cvttps_epi32(first), _mm256_cvttps_epi32(second));
    const __m256i high = _mm256_packs_epi32(_mm256_cvttps_epi32(_mm256_add_ps(first, twice_margin)),
                                            _mm256_cvttps_epi32(_mm256_add_ps(second, twice_margin)));
    const auto sure = static_cast<unsigned>(_mm256_movemask_epi8(_mm256_cmpeq_epi16(low, high)));
    if (sure != ~0U) doubts += list_doubtful(sure, x, doubtful + doubts);
    const __m256i bytes = _mm256_packus_epi16(low, low);
    const __m128i pixels =
        _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 3 * x), _mm_shuffle_epi8(pixels, gather));
  }
  return doubts;
}

BilinearFunction fastest() { return has_avx2() ? &bilinear_row_avx2 : &bilinear_row_portable; }

#elif defined(__aarch64__)

// One output pixel from one source row, times the weights' denominator: exact.
float32x4_t columns(const std::uint8_t* bytes, int pixel_bytes, const std::int16_t* weights) {
  const int16x8_t wide = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(bytes)));
  const int16x8_t right = pixel_bytes == 3 ? vextq_s16(wide, wide, 3) : vextq_s16(wide, wide, 4);
  const int32x4_t left = vmull_n_s16(vget_low_s16(wide), weights[0]);
  return vcvtq_f32_s32(vmlal_n_s16(left, vget_low_s16(right), weights[1]));
}

int bilinear_row_neon(const BilinearRow& row, int count, std::uint8_t* out, std::int32_t* doubtful) {
  const float32x4_t down = vdupq_n_f32(row.down);
  const float32x4_t scale = vdupq_n_f32(row.scale);
  const float32x4_t half = vdupq_n_f32(0.5F);
  const float32x4_t limit = vdupq_n_f32(0.5F - row.margin);
  int doubts = 0;
  for (int x = 0; x < count; ++x) {
    const std::int16_t* weights = row.weights + kBilinearWeights * x;
    const float32x4_t top = columns(row.top + row.offset[x], row.pixel_bytes, weights);
    const float32x4_t bottom = columns(row.bottom + row.offset[x], row.pixel_bytes, weights);
    const float32x4_t value = vfmaq_f32(half, vfmaq_f32(top, vsubq_f32(bottom, top), down), scale);
    const uint32x4_t whole = vcvtq_u32_f32(value);
    const float32x4_t distance = vabsq_f32(vsubq_f32(vsubq_f32(value, vcvtq_f32_u32(whole)), half));
    const uint32x4_t near = vsetq_lane_u32(0, vcgtq_f32(distance, limit), 3);
    if (vmaxvq_u32(near) != 0) doubtful[doubts++] = x;
    const uint8x8_t bytes = vmovn_u16(vcombine_u16(vmovn_u32(whole), vdup_n_u16(0)));
    vst1_lane_u32(reinterpret_cast<std::uint32_t*>(out + 3 * x), vreinterpret_u32_u8(bytes), 0);
  }
  return doubts;
}

BilinearFunction fastest() { return &bilinear_row_neon; }

#else

BilinearFunction fastest() { return &bilinear_row_portable; }

#endif

}  // namespace

int bilinear_row_portable(const BilinearRow& row, int count, std::uint8_t* out, std::int32_t* doubtful) {
  int doubts = 0;
  for (int x = 0; x < count; ++x) {
    const std::int16_t* weights = row.weights + kBilinearWeights * x;
    bool near = false;
    for (int channel = 0; channel < 3; ++channel) {
      const auto columns = [&](const std::uint8_t* source) {
        const std::uint8_t* left = source + row.offset[x] + channel;
        return static_cast<float>(left[0] * weights[0] + left[row.pixel_bytes] * weights[1]);
      };
      const float top = columns(row.top);
      const float value = (top + (columns(row.bottom) - top) * row.down) * row.scale + 0.5F;
      const auto whole = static_cast<std::uint8_t>(value);
      near |= std::abs(value - static_cast<float>(whole) - 0.5F) > 0.5F - row.margin;
      out[3 * x + channel] = whole;
    }
    if (near) doubtful[doubts++] = x;
  }
  return doubts;
}

BilinearFunction bilinear_row() {
  static const BilinearFunction chosen = fastest();
  return chosen;
}

}  // namespace eightfold::detail
