#include "resizer.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace eightfold::detail {
namespace {

// Bilinear weights along an axis of n are multiples of 1 / 2n, and as such fit 16 bits up to here.
constexpr int kLargestFastWidth = 16383;

bool same_kind(const Pixels& a, const Pixels& b) {
  return a.size == b.size && a.pixel_bytes == b.pixel_bytes && a.channels == b.channels && a.type == b.type;
}

// A bound of what single precision can add to a sum of samples with these weights, with room to spare: each
// of the products and sums errs by at most 2^-24 of a value that stays below the largest sample times the
// weights' sums.
float rounding_margin(const Taps& across, const Taps& down, PixelType type) {
  if (type == PixelType::uint8 && across.exact_in_float() && down.exact_in_float()) return 0;
  const double largest =
      (type == PixelType::uint8 ? 255 : 65535) * across.largest_weight_sum() * down.largest_weight_sum() + 1;
  return static_cast<float>(largest * 2 * (across.count + down.count + 4) * std::ldexp(1.0, -24));
}

template <typename Sample, typename Number>
Sample clamped(Number whole) {
  constexpr auto largest = static_cast<Number>(std::numeric_limits<Sample>::max());
  return static_cast<Sample>(std::clamp(whole, Number{0}, largest));
}

// The samples of a row of the source image, from a column on.
template <typename Sample>
const Sample* samples_of(const Pixels& image, int row, int column) {
  return reinterpret_cast<const Sample*>(image.data + image.row_bytes * static_cast<std::size_t>(row) +
                                         static_cast<std::size_t>(column * image.pixel_bytes));
}

template <typename Sample>
int step_of(const Pixels& image) {
  return image.pixel_bytes / static_cast<int>(sizeof(Sample));
}

}  // namespace

void Resizer::prepare(const Pixels& kind, Size resized, const Window& window, Kernel kernel) {
  if (!row_.empty() && same_kind(kind, kind_) && resized == resized_ && window == window_ &&
      kernel == kernel_)
    return;
  kind_ = kind;
  resized_ = resized;
  window_ = window;
  kernel_ = kernel;
  row_.assign(static_cast<std::size_t>(columns() * kind.channels) * bytes_of(kind.type) + kBilinearSlack, 0);
  way_ = Way::copy;
  if (kind.size == resized) return;
  across_ = axis_taps(kind.size.width, resized.width, kernel, window.left, window.right);
  down_ = axis_taps(kind.size.height, resized.height, kernel, window.top, window.bottom);
  margin_ = rounding_margin(across_, down_, kind.type);
  if (kernel == Kernel::bilinear && kind.channels == 3 && kind.type == PixelType::uint8 &&
      kind.size.width >= 2 && resized.width <= kLargestFastWidth) {
    prepare_bilinear(kind);
    return;
  }
  way_ = Way::separable;
  const auto [first, last] = std::minmax_element(across_.index.begin(), across_.index.end());
  first_column_ = *first;
  blended_.resize(static_cast<std::size_t>((*last - *first + 1) * kind.channels));
  across_weight_.assign(across_.weight.begin(), across_.weight.end());
}

// Border pixels are repeated, that is, the other of two neighbours has no weight.
void Resizer::prepare_bilinear(const Pixels& kind) {
  way_ = Way::bilinear;
  const auto count = static_cast<std::size_t>(columns());
  offset_.resize(count);
  weights_.resize(count * kBilinearWeights);
  doubtful_.resize(count + kBilinearSlack);
  const int last_left = kind.size.width - 2;
  const int denominator = 2 * resized_.width;
  fast_end_ = 0;
  for (std::size_t x = 0; x < count; ++x) {
    const int left = across_.index[2 * x];
    const bool beyond = left > last_left;
    const bool before = across_.index[2 * x + 1] == left && !beyond;
    offset_[x] = std::min(left, last_left) * kind.pixel_bytes;
    const double right = beyond ? 1 : before ? 0 : across_.weight[2 * x + 1];
    const auto numerator = static_cast<std::int16_t>(std::lround(right * denominator));
    for (std::size_t k = 0; k < kBilinearWeights; k += 2) {
      weights_[x * kBilinearWeights + k] = static_cast<std::int16_t>(denominator - numerator);
      weights_[x * kBilinearWeights + k + 1] = numerator;
    }
    if (offset_[x] + kBilinearReadBytes <= kind.size.width * kind.pixel_bytes)
      fast_end_ = static_cast<int>(x) + 1;
  }
}

const std::uint8_t* Resizer::row(const Pixels& image, int y) {
  if (way_ == Way::bilinear) {
    bilinear(image, y - window_.top);
  } else if (way_ == Way::separable) {
    if (image.type == PixelType::uint8) {
      separable<std::uint8_t>(image, y - window_.top);
    } else {
      separable<std::uint16_t>(image, y - window_.top);
    }
  } else {
    const std::size_t bytes = static_cast<std::size_t>(image.channels) * bytes_of(image.type);
    for (int x = 0; x < columns(); ++x)
      std::copy_n(samples_of<std::uint8_t>(image, y, window_.left + x), bytes,
                  &row_[static_cast<std::size_t>(x) * bytes]);
  }
  return row_.data();
}

void Resizer::bilinear(const Pixels& image, int y) {
  const auto tap = static_cast<std::size_t>(2 * y);
  const BilinearRow work = {image.data + image.row_bytes * static_cast<std::size_t>(down_.index[tap]),
                            image.data + image.row_bytes * static_cast<std::size_t>(down_.index[tap + 1]),
                            static_cast<float>(down_.weight[tap + 1]),
                            offset_.data(),
                            weights_.data(),
                            0.5F / static_cast<float>(resized_.width),
                            image.pixel_bytes,
                            margin_};
  int doubts = bilinear_row()(work, fast_end_, row_.data(), doubtful_.data());
  for (int x = fast_end_; x < columns(); ++x) doubtful_[static_cast<std::size_t>(doubts++)] = x;
  bilinear_exactly(work, &down_.weight[tap], {doubtful_.data(), static_cast<std::size_t>(doubts)});
}

// exact() for two taps either way. Smooth pictures have so many values halfway between two bytes that this is
// not rare.
void Resizer::bilinear_exactly(const BilinearRow& work, const double* down,
                               span<const std::int32_t> columns) {
  for (const std::int32_t x : columns) {
    const double* across = &across_.weight[static_cast<std::size_t>(2 * x)];
    const int left = across_.index[static_cast<std::size_t>(2 * x)] * kind_.pixel_bytes;
    const int right = across_.index[static_cast<std::size_t>(2 * x + 1)] * kind_.pixel_bytes;
    std::uint8_t* out = &row_[static_cast<std::size_t>(3 * x)];
    for (int channel = 0; channel < 3; ++channel) {
      const auto blended = [&](const std::uint8_t* row) {
        return row[left + channel] * across[0] + row[right + channel] * across[1];
      };
      const double value = blended(work.top) * down[0] + blended(work.bottom) * down[1];
      out[channel] = static_cast<std::uint8_t>(value + 0.5);  // weights of at least 0 that add up to 1
    }
  }
}

template <typename Sample>
void Resizer::blend_rows(const Pixels& image, int y) {
  std::fill(blended_.begin(), blended_.end(), 0.0F);
  const int channels = image.channels;
  const int step = step_of<Sample>(image);
  const auto pixels = static_cast<int>(blended_.size()) / channels;
  for (int k = 0; k < down_.count; ++k) {
    const auto tap = static_cast<std::size_t>(y * down_.count + k);
    const auto weight = static_cast<float>(down_.weight[tap]);
    if (weight == 0) continue;
    const Sample* source = samples_of<Sample>(image, down_.index[tap], first_column_);
    if (channels == step) {  // contiguous: the compiler vectorises this
      for (std::size_t i = 0; i < blended_.size(); ++i) blended_[i] += static_cast<float>(source[i]) * weight;
      continue;
    }
    for (int x = 0; x < pixels; ++x) {
      for (int channel = 0; channel < channels; ++channel) {
        blended_[static_cast<std::size_t>(x * channels + channel)] +=
            static_cast<float>(source[x * step + channel]) * weight;
      }
    }
  }
}

template <typename Sample>
void Resizer::separable(const Pixels& image, int y) {
  blend_rows<Sample>(image, y);
  const int channels = image.channels;
  auto* const row = reinterpret_cast<Sample*>(row_.data());
  for (int x = 0; x < columns(); ++x) {
    const auto tap = static_cast<std::size_t>(x * across_.count);
    for (int channel = 0; channel < channels; ++channel) {
      float sum = 0;
      for (int k = 0; k < across_.count; ++k) {
        const int column = across_.index[tap + static_cast<std::size_t>(k)] - first_column_;
        sum += blended_[static_cast<std::size_t>(column * channels + channel)] *
               across_weight_[tap + static_cast<std::size_t>(k)];
      }
      const float whole = std::floor(sum + 0.5F);
      const bool doubtful = std::abs(sum + 0.5F - whole - 0.5F) > 0.5F - margin_;
      row[x * channels + channel] = doubtful ? exact<Sample>(image, x, y, channel) : clamped<Sample>(whole);
    }
  }
}

// The definition: horizontal sums first, one tap after the other, nothing rounded in between.
template <typename Sample>
Sample Resizer::exact(const Pixels& image, int x, int y, int channel) const {
  const auto across = static_cast<std::size_t>(x * across_.count);
  const auto down = static_cast<std::size_t>(y * down_.count);
  double sum = 0;
  for (std::size_t j = down; j < down + static_cast<std::size_t>(down_.count); ++j) {
    const Sample* row = samples_of<Sample>(image, down_.index[j], 0) + channel;
    double row_sum = 0;
    for (std::size_t i = across; i < across + static_cast<std::size_t>(across_.count); ++i) {
      row_sum += row[across_.index[i] * step_of<Sample>(image)] * across_.weight[i];
    }
    sum += row_sum * down_.weight[j];
  }
  return clamped<Sample>(std::floor(sum + 0.5));
}

}  // namespace eightfold::detail
