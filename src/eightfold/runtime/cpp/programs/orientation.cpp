// EXIF 2.32: the orientation is tag 0x112 of the first directory (4.6.2) of a TIFF record, which JPEG keeps
// in APP1 (4.5.4) and PNG in the chunk eXIf.
#include "orientation.hpp"

#include <algorithm>
#include <cstring>

namespace programs {
namespace {

using Bytes = eightfold::span<const std::uint8_t>;

constexpr std::uint32_t kOrientationTag = 0x112;
constexpr std::uint8_t kApp1 = 0xe1;
constexpr std::uint8_t kStartOfScan = 0xda;

// The number of `count` bytes at `at`; 0 behind the end.
std::uint32_t number_at(Bytes bytes, std::size_t at, int count, bool big_endian) {
  std::uint32_t value = 0;
  for (int i = 0; i < count; ++i) {
    const std::size_t place = at + static_cast<std::size_t>(big_endian ? i : count - 1 - i);
    value = value << 8U | (place < bytes.size() ? bytes[place] : 0U);
  }
  return value;
}

bool starts_with(Bytes bytes, std::size_t at, const char* text, std::size_t count) {
  return at + count <= bytes.size() && std::memcmp(bytes.data() + at, text, count) == 0;
}

Bytes from(Bytes bytes, std::size_t at) { return bytes.subspan(at, bytes.size() - at); }

// Empty where there is none.
Bytes tiff_of_jpeg(Bytes bytes) {
  for (std::size_t at = 2; at + 4 <= bytes.size() && bytes[at] == 0xff && bytes[at + 1] != kStartOfScan;) {
    if (bytes[at + 1] == kApp1 && starts_with(bytes, at + 4, "Exif\0", 6)) return from(bytes, at + 10);
    at += 2 + number_at(bytes, at + 2, 2, true);
  }
  return {};
}

Bytes tiff_of_png(Bytes bytes) {
  for (std::size_t at = 8; at + 12 <= bytes.size();) {
    if (starts_with(bytes, at + 4, "eXIf", 4)) return from(bytes, at + 8);
    at += 12 + std::size_t{number_at(bytes, at, 4, true)};
  }
  return {};
}

}  // namespace

int orientation_of(Bytes bytes) {
  const Bytes tiff = starts_with(bytes, 1, "PNG", 3) ? tiff_of_png(bytes) : tiff_of_jpeg(bytes);
  const bool big = starts_with(tiff, 0, "MM", 2);
  const std::size_t directory = number_at(tiff, 4, 4, big);
  const std::uint32_t count = number_at(tiff, directory, 2, big);
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t entry = directory + 2 + 12 * i;
    if (number_at(tiff, entry, 2, big) != kOrientationTag) continue;
    const std::uint32_t value = number_at(tiff, entry + 8, 2, big);
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

Image upright(Image image, int orientation) {
  if (orientation == 1) return image;
  const bool transposed = orientation >= 5;
  const bool flip_x = orientation == 2 || orientation == 3 || orientation >= 7;
  const bool flip_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const std::size_t pixel = static_cast<std::size_t>(image.channels) * bytes_of(image.type);
  Image result = {{}, image.width, image.height, image.channels, image.type};
  if (transposed) std::swap(result.width, result.height);
  result.pixels.reserve(image.pixels.size());
  for (int y = 0; y < result.height; ++y) {
    for (int x = 0; x < result.width; ++x) {
      const int column = transposed ? y : x;
      const int row = transposed ? x : y;
      const int from_x = flip_x ? image.width - 1 - column : column;
      const int from_y = flip_y ? image.height - 1 - row : row;
      const auto place = static_cast<std::size_t>(from_y) * static_cast<std::size_t>(image.width) +
                         static_cast<std::size_t>(from_x);
      const std::uint8_t* source = image.pixels.data() + place * pixel;
      result.pixels.insert(result.pixels.end(), source, source + pixel);
    }
  }
  return result;
}

}  // namespace programs
