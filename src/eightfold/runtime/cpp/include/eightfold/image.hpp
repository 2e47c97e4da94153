// Purpose: an image in the caller's memory.
// Ownership: none; the pixels must outlive the call that they are passed to.
#pragma once

#include <cstddef>
#include <cstdint>

namespace eightfold {

// Order of the channels in memory. OpenCV's images are bgr; those of most decoders are rgb. `stored` is any
// number of channels that are no colours, such as those of a multispectral camera.
enum class PixelFormat : int { rgb = 0, bgr = 1, grey = 2, rgba = 3, bgra = 4, stored = 5 };
// Of each channel; 16 bits in the byte order of the processor.
enum class PixelType : int { uint8 = 0, uint16 = 1 };

constexpr int channels_of(PixelFormat format) {
  return format == PixelFormat::grey ? 1 : (format == PixelFormat::rgb || format == PixelFormat::bgr) ? 3 : 4;
}
constexpr std::size_t bytes_of(PixelType type) { return type == PixelType::uint16 ? 2 : 1; }

struct ImageView {
  const std::uint8_t* data = nullptr;  // of 16-bit pixels: their first byte, at an even address
  int width = 0;
  int height = 0;
  PixelFormat format = PixelFormat::bgr;
  std::size_t stride = 0;   // bytes from row to row; 0: rows follow each other without gaps
  int stored_channels = 0;  // of PixelFormat::stored
  PixelType type = PixelType::uint8;

  int channels() const { return format == PixelFormat::stored ? stored_channels : channels_of(format); }
  std::size_t packed_row_bytes() const {
    return static_cast<std::size_t>(width) * static_cast<std::size_t>(channels()) * bytes_of(type);
  }
  std::size_t row_bytes() const { return stride != 0 ? stride : packed_row_bytes(); }
};

}  // namespace eightfold
