// Purpose: an image in the caller's memory.
// Ownership: none; the pixels must outlive the call that they are passed to.
#pragma once

#include <cstddef>
#include <cstdint>

namespace eightfold {

// Order of the channels in memory, 8 bits each. OpenCV's images are bgr; those of most decoders are rgb.
enum class PixelFormat : int { rgb = 0, bgr = 1, grey = 2, rgba = 3, bgra = 4 };

constexpr int channels_of(PixelFormat format) {
  return format == PixelFormat::grey ? 1 : (format == PixelFormat::rgb || format == PixelFormat::bgr) ? 3 : 4;
}

struct ImageView {
  const std::uint8_t* data = nullptr;
  int width = 0;
  int height = 0;
  PixelFormat format = PixelFormat::bgr;
  std::size_t stride = 0;  // bytes from row to row; 0: rows follow each other without gaps

  std::size_t row_bytes() const {
    return stride != 0 ? stride
                       : static_cast<std::size_t>(width) * static_cast<std::size_t>(channels_of(format));
  }
};

}  // namespace eightfold
