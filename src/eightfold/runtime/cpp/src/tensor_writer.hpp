// Purpose: put rows of pixels where they belong in a tensor: layout, order of channels, bytes or floats.
#pragma once

#include <algorithm>
#include <cstdint>

#include "eightfold/preprocess.hpp"
#include "normalize.hpp"

namespace eightfold::detail {

// Which byte of a source pixel each channel of the tensor is.
struct ChannelOrder {
  int pixel_bytes;
  int byte[3];
};

// T is float, normalized, or uint8, as the pixels are.
template <typename T>
class TensorWriter {
 public:
  TensorWriter(const Preprocess& preprocess, const Normalizer& normalizer, void* tensor)
      : tensor_(static_cast<T*>(tensor)),
        normalizer_(&normalizer),
        width_(preprocess.width),
        channels_(preprocess.channels()),
        planar_(preprocess.layout == Layout::nchw),
        plane_(static_cast<std::ptrdiff_t>(preprocess.height) * width_) {}

  void pad(int y, int left, int right, std::uint8_t value) const {
    for (int channel = 0; channel < channels_; ++channel) {
      T* out = at(y, left, channel);
      const T padding = converted(value, channel);
      for (int x = left; x < right; ++x, out += planar_ ? 1 : channels_) *out = padding;
    }
  }

  void row(int y, int left, const std::uint8_t* pixels, int count, const ChannelOrder& order) const {
    if constexpr (std::is_same_v<T, float>) {
      if (planar_ && channels_ == 3 && order.pixel_bytes == 3) {
        float* const planes[3] = {at(y, left, 0), at(y, left, 1), at(y, left, 2)};
        return normalizer_->planes(pixels, order.byte, count, planes);
      }
    }
    for (int channel = 0; channel < channels_; ++channel) {
      T* out = at(y, left, channel);
      const std::uint8_t* source = pixels + order.byte[channel];
      const int step = planar_ ? 1 : channels_;
      for (int x = 0; x < count; ++x) out[x * step] = converted(source[x * order.pixel_bytes], channel);
    }
  }

 private:
  T* at(int y, int x, int channel) const {
    const std::ptrdiff_t pixel = static_cast<std::ptrdiff_t>(y) * width_ + x;
    return tensor_ + (planar_ ? channel * plane_ + pixel : pixel * channels_ + channel);
  }
  T converted(std::uint8_t value, int channel) const {
    if constexpr (std::is_same_v<T, float>) {
      return (*normalizer_)(value, channel);
    } else {
      return value;
    }
  }

  T* tensor_;
  const Normalizer* normalizer_;
  int width_;
  int channels_;
  bool planar_;
  std::ptrdiff_t plane_;
};

}  // namespace eightfold::detail
