// Purpose: arrays (height, width) or (height, width, channels) of uint8 or uint16 in .npy files.
#pragma once

#include "image_file.hpp"

namespace programs {

bool is_npy(eightfold::span<const std::uint8_t> bytes);
// Throws eightfold::Error (image).
Image image_from_npy(eightfold::span<const std::uint8_t> bytes, const std::string& path);

}  // namespace programs
