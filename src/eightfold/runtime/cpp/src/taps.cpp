#include "taps.hpp"

#include <algorithm>
#include <array>
#include <cmath>

namespace eightfold::detail {
namespace {

using KernelFunction = double (*)(double);

double triangle(double x) { return std::max(0.0, 1 - std::abs(x)); }

// Keys (1981), "Cubic Convolution Interpolation for Digital Image Processing".
double keys(double x, double a) {
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0.0;
}
double keys_half(double x) { return keys(x, -0.5); }
double keys_three_quarters(double x) { return keys(x, -0.75); }

// numpy's order of summation, which decides the last bit: eight running sums where there are eight numbers or
// more, halves of long rows apart.
double sum_as_numpy(const double* values, std::size_t count) {
  if (count > 128) {
    const std::size_t half = count / 2 - count / 2 % 8;
    return sum_as_numpy(values, half) + sum_as_numpy(values + half, count - half);
  }
  double sum = 0;
  std::size_t done = 0;
  if (count >= 8) {
    std::array<double, 8> sums;
    std::copy_n(values, 8, sums.begin());
    for (done = 8; done + 8 <= count; done += 8) {
      for (std::size_t k = 0; k < 8; ++k) sums[k] += values[done + k];
    }
    sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
  }
  for (; done < count; ++done) sum += values[done];
  return sum;
}

Taps empty_taps(int count, int begin, int end) {
  Taps taps;
  taps.count = count;
  taps.index.resize(static_cast<std::size_t>(end - begin) * static_cast<std::size_t>(count));
  taps.weight.resize(taps.index.size());
  return taps;
}

// Rows of weights are divided by their sums, indices kept on the axis.
void normalize(Taps& taps, int old_size) {
  const auto count = static_cast<std::size_t>(taps.count);
  for (std::size_t row = 0; row < taps.weight.size(); row += count) {
    const double sum = sum_as_numpy(&taps.weight[row], count);
    for (std::size_t k = 0; k < count; ++k) taps.weight[row + k] /= sum;
  }
  for (int& index : taps.index) index = std::min(index, old_size - 1);
}

Taps clamped_taps(int old_size, int new_size, KernelFunction kernel, int radius, int begin, int end) {
  Taps taps = empty_taps(2 * radius, begin, end);
  std::size_t at = 0;
  for (int i = begin; i < end; ++i) {
    const double centre = (i + 0.5) * old_size / new_size - 0.5;
    const int first = static_cast<int>(std::floor(centre)) + 1 - radius;
    for (int k = 0; k < taps.count; ++k, ++at) {
      taps.index[at] = std::clamp(first + k, 0, old_size - 1);
      taps.weight[at] = kernel(centre - (first + k));
    }
  }
  return taps;
}

struct Range {
  int first;
  int last;
};

Taps stretched_taps(int old_size, int new_size, KernelFunction kernel, int radius, int begin, int end) {
  const double stretch = std::max(static_cast<double>(old_size) / new_size, 1.0);
  const double support = radius * stretch;
  const auto centre_of = [&](int i) { return (i + 0.5) * old_size / new_size; };
  const auto range_of = [&](int i) {
    return Range{std::max(static_cast<int>(centre_of(i) - support + 0.5), 0),
                 std::min(static_cast<int>(centre_of(i) + support + 0.5), old_size)};
  };
  int count = 0;  // of the whole axis: the order of summation depends on it
  for (int i = 0; i < new_size; ++i) count = std::max(count, range_of(i).last - range_of(i).first);
  Taps taps = empty_taps(count, begin, end);
  std::size_t at = 0;
  for (int i = begin; i < end; ++i) {
    const auto [first, last] = range_of(i);
    for (int index = first; index < first + count; ++index, ++at) {
      taps.index[at] = index;
      taps.weight[at] = index < last ? kernel((index + 0.5 - centre_of(i)) / stretch) : 0.0;
    }
  }
  normalize(taps, old_size);
  return taps;
}

Taps area_taps(int old_size, int new_size, int begin, int end) {
  const auto edge = [&](int i) { return static_cast<double>(i) * old_size / new_size; };
  double widest = 0;
  for (int i = 0; i < new_size; ++i) widest = std::max(widest, std::ceil(edge(i + 1) - std::floor(edge(i))));
  Taps taps = empty_taps(static_cast<int>(widest), begin, end);
  std::size_t at = 0;
  for (int i = begin; i < end; ++i) {
    const double low = edge(i);
    const double high = edge(i + 1);
    const int first = static_cast<int>(std::floor(low));
    for (int index = first; index < first + taps.count; ++index, ++at) {
      taps.index[at] = index;
      taps.weight[at] = std::max(std::min<double>(index + 1, high) - std::max<double>(index, low), 0.0);
    }
  }
  normalize(taps, old_size);
  return taps;
}

}  // namespace

Kernel kernel_of(const Preprocess& preprocess, bool grows) {
  if (preprocess.interpolation == Interpolation::area) return grows ? Kernel::bilinear : Kernel::area;
  if (preprocess.interpolation == Interpolation::bilinear) {
    return preprocess.antialias ? Kernel::bilinear_antialias : Kernel::bilinear;
  }
  return preprocess.antialias ? Kernel::bicubic_antialias : Kernel::bicubic;
}

double Taps::largest_weight_sum() const {
  double largest = 0;
  for (std::size_t row = 0; row < weight.size(); row += static_cast<std::size_t>(count)) {
    double sum = 0;
    for (int k = 0; k < count; ++k) sum += std::abs(weight[row + static_cast<std::size_t>(k)]);
    largest = std::max(largest, sum);
  }
  return largest;
}

bool Taps::exact_in_float() const {
  // 8 bits of a pixel and 7 of a weight along either axis leave 2 of float's 24 for the sums.
  return std::all_of(weight.begin(), weight.end(),
                     [](double each) { return each * 128 == std::floor(each * 128); });
}

Taps axis_taps(int old_size, int new_size, Kernel kernel, int begin, int end) {
  switch (kernel) {
    case Kernel::bilinear:
      return clamped_taps(old_size, new_size, triangle, 1, begin, end);
    case Kernel::bicubic:
      return clamped_taps(old_size, new_size, keys_three_quarters, 2, begin, end);
    case Kernel::bilinear_antialias:
      return stretched_taps(old_size, new_size, triangle, 1, begin, end);
    case Kernel::bicubic_antialias:
      return stretched_taps(old_size, new_size, keys_half, 2, begin, end);
    default:
      return area_taps(old_size, new_size, begin, end);
  }
}

}  // namespace eightfold::detail
