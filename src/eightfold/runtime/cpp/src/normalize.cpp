#include "normalize.hpp"

#include <array>
#include <cmath>

#include "simd.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace eightfold::detail {
namespace {

#if defined(__x86_64__)

EIGHTFOLD_AVX2 inline __m128 quarter(__m128i values, __m256d factor, __m256d offset) {
  return _mm256_cvtpd_ps(_mm256_fmadd_pd(_mm256_cvtepi32_pd(values), factor, offset));
}

// One channel of pixels of three bytes, eight pixels at a time. Returns how many were done.
EIGHTFOLD_AVX2 int plane_avx2(const std::uint8_t* pixels, int byte, int count, double factor, double offset,
                              float* out) {
  std::array<char, 16> first;
  std::array<char, 16> second;  // of the bytes from 8 on
  for (int i = 0; i < 16; ++i) {
    const int place = 3 * i + byte;
    first[static_cast<std::size_t>(i)] = static_cast<char>(i < 8 && place < 16 ? place : -1);
    second[static_cast<std::size_t>(i)] = static_cast<char>(i < 8 && place >= 16 ? place - 8 : -1);
  }
  const __m128i pick_first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(first.data()));
  const __m128i pick_second = _mm_loadu_si128(reinterpret_cast<const __m128i*>(second.data()));
  const __m256d factors = _mm256_set1_pd(factor);
  const __m256d offsets = _mm256_set1_pd(offset);
  int x = 0;
  for (; x + 8 <= count; x += 8) {
    const auto* from = reinterpret_cast<const __m128i*>(pixels + 3 * x);
    const auto* from_8 = reinterpret_cast<const __m128i*>(pixels + 3 * x + 8);
    const __m128i bytes = _mm_or_si128(_mm_shuffle_epi8(_mm_loadu_si128(from), pick_first),
                                       _mm_shuffle_epi8(_mm_loadu_si128(from_8), pick_second));
    _mm_storeu_ps(out + x, quarter(_mm_cvtepu8_epi32(bytes), factors, offsets));
    _mm_storeu_ps(out + x + 4, quarter(_mm_cvtepu8_epi32(_mm_srli_si128(bytes, 4)), factors, offsets));
  }
  return x;
}

#else

int plane_avx2(const std::uint8_t*, int, int, double, double, float*) { return 0; }

#endif

double of_channel(const std::vector<double>& values, std::size_t channel) {
  return values.size() == 1 ? values[0] : values[channel];
}

}  // namespace

Normalizer::Normalizer(const Preprocess& preprocess)
    : channels_(static_cast<std::size_t>(preprocess.channels())) {
  for (std::size_t i = 0; i < channels_.size(); ++i) {
    Channel& channel = channels_[i];
    const double mean = of_channel(preprocess.mean, i);
    const double std = of_channel(preprocess.std, i);
    channel.factor = preprocess.scale / std;
    channel.offset = -mean / std;
    for (int value = 0; value <= preprocess.largest_pixel(); ++value) {
      const auto exact = static_cast<float>((value * preprocess.scale - mean) / std);
      channel.table.push_back(exact);
      linear_ = linear_ && exact == static_cast<float>(std::fma(value, channel.factor, channel.offset));
    }
  }
  linear_ = linear_ && has_avx2();
}

void Normalizer::planes(const std::uint8_t* pixels, const int* order, int count, float* const* out) const {
  for (int c = 0; c < 3; ++c) {
    const Channel& channel = channels_[static_cast<std::size_t>(c)];
    const int done =
        linear_ ? plane_avx2(pixels, order[c], count, channel.factor, channel.offset, out[c]) : 0;
    for (int x = done; x < count; ++x) out[c][x] = channel.table[pixels[3 * x + order[c]]];
  }
}

}  // namespace eightfold::detail
