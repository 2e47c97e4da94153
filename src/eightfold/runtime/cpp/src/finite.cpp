#include "finite.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "simd.hpp"

namespace eightfold::detail {
namespace {

constexpr std::size_t kLanes = 32;
// How far ahead memory is asked for. A prepared tensor has often left the nearer caches by the time that it
// is used, and the processor's own guess of what comes next ends at every page.
constexpr std::size_t kAheadBytes = 16384;
constexpr std::size_t kLineBytes = 64;

// The sign bit of the result is set where the exponent is all ones, that is, for NaN and infinity: without
// its sign, such a number is so large that adding one to the exponent carries over.
EIGHTFOLD_ALWAYS_INLINE std::uint32_t carry_of(const float* value) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, value, sizeof bits);
  return (bits & 0x7fffffffU) + 0x00800000U;
}

EIGHTFOLD_ALWAYS_INLINE void carries_loop(const float* values, std::size_t count, std::uint32_t* result) {
  std::array<std::uint32_t, kLanes> carries = {};
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const char* ahead = reinterpret_cast<const char*>(values + i) + kAheadBytes;
    for (std::size_t at = 0; at < kLanes * sizeof(float); at += kLineBytes) __builtin_prefetch(ahead + at);
    for (std::size_t k = 0; k < kLanes; ++k) carries[k] |= carry_of(values + i + k);
  }
  for (; i < count; ++i) carries[0] |= carry_of(values + i);
  for (const std::uint32_t each : carries) *result |= each;
}
EIGHTFOLD_TWICE(carries_of, (const float* values, std::size_t count, std::uint32_t* result),
                carries_loop(values, count, result))

}  // namespace

bool all_finite(const float* values, std::size_t count) {
  std::uint32_t carries = 0;
  carries_of(values, count, &carries);
  return carries >> 31U == 0;
}

bool all_finite(const void* data, std::size_t bytes, DataType type) {
  if (type == DataType::float32) return all_finite(static_cast<const float*>(data), bytes / sizeof(float));
  if (type != DataType::float16) return true;
  const auto* halves = static_cast<const std::uint16_t*>(data);
  constexpr std::uint16_t kExponent = 0x7c00;
  return std::none_of(halves, halves + bytes / sizeof *halves,
                      [](std::uint16_t bits) { return (bits & kExponent) == kExponent; });
}

}  // namespace eightfold::detail
