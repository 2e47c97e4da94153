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
  int channels = 3;
  eightfold::PixelType type = eightfold::PixelType::uint8;

  eightfold::ImageView view() const;
};

// Throws eightfold::Error (image). Pixels of more than 8 bits keep them: the type is uint16.
// `as_stored`: with the channels that the file has, and not turned. An .npy file gives its array.
Image read_image(const std::string& path, bool as_stored);

}  // namespace programs
