// Purpose: image files without a library: PNG (8 bits, not interlaced) and the binary forms of Netpbm (PPM,
// PGM).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "eightfold/image.hpp"
#include "eightfold/span.hpp"

namespace programs {

struct Image {
  std::vector<std::uint8_t> pixels;
  int width = 0;
  int height = 0;
  eightfold::PixelFormat format = eightfold::PixelFormat::rgb;

  eightfold::ImageView view() const { return {pixels.data(), width, height, format, 0}; }
};

// Throws eightfold::Error (image).
Image read_image(const std::string& path);

bool is_png(eightfold::span<const std::uint8_t> bytes);
Image image_from_png(eightfold::span<const std::uint8_t> bytes, const std::string& path);
bool is_netpbm(eightfold::span<const std::uint8_t> bytes);
Image image_from_netpbm(eightfold::span<const std::uint8_t> bytes, const std::string& path);

}  // namespace programs
