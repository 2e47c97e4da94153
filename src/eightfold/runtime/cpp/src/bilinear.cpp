#include "bilinear.hpp"

#include <cmath>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace eightfold::detail {
namespace {

#if defined(__x86_64__)

// One output pixel before its columns are summed: both rows blended, weighted, the left pixel in the lower
// half and the right one in the upper half.
__attribute__((target("avx2,fma"))) inline __m256 weighted_columns(const BilinearRow& row, int x,
                                                                   __m256i spread, __m256 down, __m256 bias) {
  const auto pixels = [&](const std::uint8_t* source) __attribute__((target("avx2,fma"))) {
    std::int64_t bytes = 0;
    std::memcpy(&bytes, source + row.offset[x], sizeof bytes);
    return _mm256_cvtepi32_ps(_mm256_shuffle_epi8(_mm256_set1_epi64x(bytes), spread));
  };
  const __m256 top = pixels(row.top);
  const __m256 blended = _mm256_fmadd_ps(_mm256_sub_ps(pixels(row.bottom), top), down, top);
  return _mm256_fmadd_ps(blended, _mm256_loadu_ps(row.weights + kBilinearWeights * x), bias);
}

// Two output pixels at a time, one in each half of the registers. A value is doubtful when rounding it with
// the margin added gives something else than with the margin taken away.
__attribute__((target("avx2,fma"))) int bilinear_row_avx2(const BilinearRow& row, int count,
                                                          std::uint8_t* out, std::int32_t* doubtful) {
  const __m256 down = _mm256_set1_ps(row.down);
  const __m256 bias = _mm256_set1_ps((0.5F - row.margin) / 2);  // in each of the two columns
  const __m256 twice_margin = _mm256_set1_ps(2 * row.margin);
  const char right = static_cast<char>(row.pixel_bytes);
  const __m256i spread =
      _mm256_setr_epi8(0, -1, -1, -1, 1, -1, -1, -1, 2, -1, -1, -1, -1, -1, -1, -1, right, -1, -1, -1,
                       right + 1, -1, -1, -1, right + 2, -1, -1, -1, -1, -1, -1, -1);
  const __m256i gather = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4,
                                          8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
  int doubts = 0;
  int x = 0;
  for (; x + 2 <= count; x += 2) {
    const __m256 first = weighted_columns(row, x, spread, down, bias);
    const __m256 second = weighted_columns(row, x + 1, spread, down, bias);
    const __m256 value = _mm256_add_ps(_mm256_permute2f128_ps(first, second, 0x20),
                                       _mm256_permute2f128_ps(first, second, 0x31));
    const __m256i low = _mm256_cvttps_epi32(value);
    const __m256i high = _mm256_cvttps_epi32(_mm256_add_ps(value, twice_margin));
    const int sure = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(low, high)));
    if (sure != 0xff) {
      if ((sure & 0x0f) != 0x0f) doubtful[doubts++] = x;
      if ((sure & 0xf0) != 0xf0) doubtful[doubts++] = x + 1;
    }
    const __m256i bytes = _mm256_shuffle_epi8(low, gather);
    const int left_pixel = _mm_cvtsi128_si32(_mm256_castsi256_si128(bytes));
    const int right_pixel = _mm_cvtsi128_si32(_mm256_extracti128_si256(bytes, 1));
    std::memcpy(out + 3 * x, &left_pixel, sizeof left_pixel);
    std::memcpy(out + 3 * x + 3, &right_pixel, sizeof right_pixel);
  }
  BilinearRow rest = row;
  rest.offset += x;
  rest.weights += kBilinearWeights * x;
  const int more = bilinear_row_portable(rest, count - x, out + 3 * x, doubtful + doubts);
  for (int i = doubts; i < doubts + more; ++i) doubtful[i] += x;
  return doubts + more;
}

BilinearFunction fastest() {
  return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0 ? &bilinear_row_avx2
                                                                                   : &bilinear_row_portable;
}

#elif defined(__aarch64__)

struct Blended {
  float32x4_t left;
  float32x4_t right;
};

inline float32x4_t blend(uint16x4_t top, uint16x4_t bottom, float32x4_t down) {
  const float32x4_t upper = vcvtq_f32_u32(vmovl_u16(top));
  const float32x4_t lower = vcvtq_f32_u32(vmovl_u16(bottom));
  return vfmaq_f32(upper, vsubq_f32(lower, upper), down);
}

inline Blended blend_rows(const BilinearRow& row, std::int32_t offset, float32x4_t down) {
  const uint16x8_t top = vmovl_u8(vld1_u8(row.top + offset));
  const uint16x8_t bottom = vmovl_u8(vld1_u8(row.bottom + offset));
  const uint16x8_t top_right = row.pixel_bytes == 3 ? vextq_u16(top, top, 3) : vextq_u16(top, top, 4);
  const uint16x8_t bottom_right =
      row.pixel_bytes == 3 ? vextq_u16(bottom, bottom, 3) : vextq_u16(bottom, bottom, 4);
  return {blend(vget_low_u16(top), vget_low_u16(bottom), down),
          blend(vget_low_u16(top_right), vget_low_u16(bottom_right), down)};
}

int bilinear_row_neon(const BilinearRow& row, int count, std::uint8_t* out, std::int32_t* doubtful) {
  const float32x4_t down = vdupq_n_f32(row.down);
  const float32x4_t half = vdupq_n_f32(0.5F);
  const float32x4_t limit = vdupq_n_f32(0.5F - row.margin);
  int doubts = 0;
  for (int x = 0; x < count; ++x) {
    const Blended pixels = blend_rows(row, row.offset[x], down);
    const float* weights = row.weights + kBilinearWeights * x;
    const float32x4_t left = vfmaq_f32(half, pixels.left, vld1q_f32(weights));
    const float32x4_t value = vfmaq_f32(left, pixels.right, vld1q_f32(weights + 4));
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
    const std::uint8_t* top = row.top + row.offset[x];
    const std::uint8_t* bottom = row.bottom + row.offset[x];
    bool near = false;
    for (int channel = 0; channel < 3; ++channel) {
      const auto blended = [&](int at) {
        const auto upper = static_cast<float>(top[at]);
        return upper + (static_cast<float>(bottom[at]) - upper) * row.down;
      };
      const float* weights = row.weights + kBilinearWeights * x;
      const float value =
          blended(channel) * weights[0] + blended(channel + row.pixel_bytes) * weights[4] + 0.5F;
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
