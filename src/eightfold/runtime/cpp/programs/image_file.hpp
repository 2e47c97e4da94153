// Purpose: image files through stb_image, by the rules of eightfold.calib.images.decode: turned upright,
// palettes expanded, alpha dropped. JPEG, PNG and the binary forms of Netpbm (PPM, PGM).
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

// Throws eightfold::Error (image), also where a channel has other than 8 bits: none are dropped in silence.
Image read_image(const std::string& path);

}  // namespace programs
