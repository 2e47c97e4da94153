// Purpose: turn a photograph upright, as its EXIF record says and as OpenCV does for Python.
#pragma once

#include "image_file.hpp"

namespace programs {

// EXIF's Orientation, 1 to 8; 1 (upright) where the file states none. `bytes` is a whole JPEG or PNG file.
int orientation_of(eightfold::span<const std::uint8_t> bytes);

Image upright(Image image, int orientation);

}  // namespace programs
