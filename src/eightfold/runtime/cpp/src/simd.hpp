// Purpose: plain loops compiled twice, for the least processor of the architecture and for x86-64 with AVX2,
// the choice being made when the library runs. (NEON is part of every 64-bit Arm, so that one copy is enough
// there. Not target_clones: it wants ifunc, which sanitizers and some C libraries cannot live with.)
//
//   EIGHTFOLD_ALWAYS_INLINE void scale_loop(float* values, std::size_t count) { ... }
//   EIGHTFOLD_TWICE(scale, (float* values, std::size_t count), scale_loop(values, count))
#pragma once

#define EIGHTFOLD_ALWAYS_INLINE inline __attribute__((always_inline))

#if defined(__x86_64__)
#define EIGHTFOLD_AVX2 __attribute__((target("avx2,fma")))
// NOLINTBEGIN(bugprone-macro-parentheses): parameters and a statement cannot stand in any
// Defines `name` with these parameters, as a constant pointer to the better copy of `body`.
#define EIGHTFOLD_TWICE(name, parameters, body)        \
  EIGHTFOLD_AVX2 void name##_avx2 parameters { body; } \
  void name##_any parameters { body; }                 \
  const auto name = ::eightfold::detail::has_avx2() ? &name##_avx2 : &name##_any;
#else
#define EIGHTFOLD_TWICE(name, parameters, body) \
  void name parameters { body; }
#endif
// NOLINTEND(bugprone-macro-parentheses)

namespace eightfold::detail {

#if defined(__x86_64__)
inline bool has_avx2() { return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0; }
#else
inline bool has_avx2() { return false; }
#endif

}  // namespace eightfold::detail
