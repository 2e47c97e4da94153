// Purpose: put rows of pixels where they belong in a tensor: layout, order of channels, bytes or floats.
#pragma once

#include <algorithm>
#include <cstdint>

#include "eightfold/preprocess.hpp"
#include "normalize.hpp"

namespace eightfold::detail {

// The sample of a source pixel that a channel of the tensor is. A single one is repeated.
struct ChannelOrder {
  int samples;  // of a source pixel
  bool reversed;

  int place(int channel) const { return samples == 1 ? 0 : reversed ? samples - 1 - channel : channel; }
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

  void pad(int y, int left, int right, int value) const {
    for (int channel = 0; channel < channels_; ++channel) {
      T* out = at(y, left, channel);
      const T padding = converted(value, channel);
      for (int x = left; x < right; ++x, out += planar_ ? 1 : channels_) *out = padding;
    }
  }

  template <typename Sample>
  void row(int y, int left, const Sample* pixels, int count, const ChannelOrder& order) const {
    if constexpr (std::is_same_v<T, float> && sizeof(Sample) == 1) {
      if (planar_ && channels_ == 3 && order.samples == 3) {
        float* const planes[3] = {at(y, left, 0), at(y, left, 1), at(y, left, 2)};
        const int places[3] = {order.place(0), order.place(1), order.place(2)};
        return normalizer_->planes(pixels, places, count, planes);
      }
    }
    for (int channel = 0; channel < channels_; ++channel) {
      T* out = at(y, left, channel);
      const Sample* source = pixels + order.place(channel);
      const int step = planar_ ? 1 : channels_;
      for (int x = 0; x < count; ++x) out[x * step] = converted(source[x * order.samples], channel);
    }
  }

 private:
  T* at(int y, int x, int channel) const {
    const std::ptrdiff_t pixel = static_cast<std::ptrdiff_t>(y) * width_ + x;
    return tensor_ + (planar_ ? channel * plane_ + pixel : pixel * channels_ + channel);
  }
  T converted(int value, int channel) const {
    if constexpr (std::is_same_v<T, float>) {
      return (*normalizer_)(static_cast<std::size_t>(value), channel);
    } else {
      return static_cast<T>(value);
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
