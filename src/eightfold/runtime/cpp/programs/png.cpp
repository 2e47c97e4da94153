// PNG by the W3C's specification, second edition: chunks (5), filters (9).
#include <cstdlib>
#include <cstring>

#include "eightfold/error.hpp"
#include "image_file.hpp"
#include "inflate.hpp"

namespace programs {
namespace {

using Bytes = eightfold::span<const std::uint8_t>;

constexpr std::uint8_t kSignature[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
constexpr std::uint32_t kLargestSide = 1 << 16;

[[noreturn]] void unreadable(const std::string& path, const std::string& why) {
  throw eightfold::Error(eightfold::ErrorCode::image, "cannot read " + path + " (" + why + ")",
                         "PNG with 8 bits per channel, not interlaced; binary PPM or PGM",
                         "convert it first");
}

std::uint32_t big_endian(const std::uint8_t* bytes) {
  return std::uint32_t{bytes[0]} << 24U | std::uint32_t{bytes[1]} << 16U | std::uint32_t{bytes[2]} << 8U |
         bytes[3];
}

struct Png {
  std::uint32_t width = 0;
  std::uint32_t height = 0;
  int color_type = -1;
  std::vector<std::uint8_t> palette;
  std::vector<std::uint8_t> packed;  // all data chunks, a zlib stream
};

void read_header(const std::uint8_t* data, std::uint32_t size, Png& png, const std::string& path) {
  if (size != 13) unreadable(path, "its header is damaged");
  png.width = big_endian(data);
  png.height = big_endian(data + 4);
  png.color_type = data[9];
  const bool known = png.color_type == 0 || png.color_type == 2 || png.color_type == 3 || png.color_type == 6;
  if (data[8] != 8 || data[12] != 0 || !known) unreadable(path, "its kind of PNG is not known");
  if (png.width < 1 || png.height < 1 || png.width > kLargestSide || png.height > kLargestSide) {
    unreadable(path, "its size is not possible");
  }
}

Png read_chunks(Bytes bytes, const std::string& path) {
  Png png;
  for (std::size_t at = sizeof kSignature; at + 12 <= bytes.size();) {
    const std::uint32_t size = big_endian(bytes.data() + at);
    const std::uint8_t* kind = bytes.data() + at + 4;
    const std::uint8_t* data = kind + 4;
    if (size > bytes.size() - at - 12) unreadable(path, "it is cut off");
    if (std::memcmp(kind, "IHDR", 4) == 0) read_header(data, size, png, path);
    if (std::memcmp(kind, "PLTE", 4) == 0) png.palette.assign(data, data + size);
    if (std::memcmp(kind, "IDAT", 4) == 0) png.packed.insert(png.packed.end(), data, data + size);
    at += 12 + size;
  }
  if (png.color_type < 0 || png.packed.size() < 6) unreadable(path, "it is cut off");
  return png;
}

int paeth(int left, int above, int corner) {
  const int estimate = left + above - corner;
  const int to_left = std::abs(estimate - left);
  const int to_above = std::abs(estimate - above);
  const int to_corner = std::abs(estimate - corner);
  if (to_left <= to_above && to_left <= to_corner) return left;
  return to_above <= to_corner ? above : corner;
}

// Undoes the filter of each row, in place; a row is preceded by the number of its filter.
void unfilter(std::vector<std::uint8_t>& data, std::size_t row_bytes, std::size_t pixel,
              const std::string& path) {
  const std::vector<std::uint8_t> zeros(row_bytes, 0);
  const std::uint8_t* above = zeros.data();
  for (std::size_t at = 0; at < data.size(); at += row_bytes + 1) {
    std::uint8_t* row = data.data() + at + 1;
    for (std::size_t i = 0; i < row_bytes; ++i) {
      const int left = i >= pixel ? row[i - pixel] : 0;
      const int corner = i >= pixel ? above[i - pixel] : 0;
      int guess = 0;
      switch (data[at]) {
        case 0:
          break;
        case 1:
          guess = left;
          break;
        case 2:
          guess = above[i];
          break;
        case 3:
          guess = (left + above[i]) / 2;
          break;
        case 4:
          guess = paeth(left, above[i], corner);
          break;
        default:
          unreadable(path, "its data are damaged");
      }
      row[i] = static_cast<std::uint8_t>(row[i] + guess);
    }
    above = row;
  }
}

}  // namespace

bool is_png(Bytes bytes) {
  return bytes.size() >= sizeof kSignature && std::memcmp(bytes.data(), kSignature, sizeof kSignature) == 0;
}

Image image_from_png(Bytes bytes, const std::string& path) {
  const Png png = read_chunks(bytes, path);
  const std::size_t channels = png.color_type == 2 ? 3 : png.color_type == 6 ? 4 : 1;
  const std::size_t row_bytes = png.width * channels;
  std::vector<std::uint8_t> data((row_bytes + 1) * png.height);
  // Two bytes of zlib's header before the deflated data, and four of its checksum after.
  if (!eightfold::detail::inflate({png.packed.data() + 2, png.packed.size() - 6}, data)) {
    unreadable(path, "its data are damaged");
  }
  unfilter(data, row_bytes, channels, path);
  Image image;
  image.width = static_cast<int>(png.width);
  image.height = static_cast<int>(png.height);
  image.format = channels == 1   ? eightfold::PixelFormat::grey
                 : channels == 3 ? eightfold::PixelFormat::rgb
                                 : eightfold::PixelFormat::rgba;
  for (std::size_t y = 0; y < png.height; ++y) {
    const auto first = data.begin() + static_cast<std::ptrdiff_t>(y * (row_bytes + 1) + 1);
    image.pixels.insert(image.pixels.end(), first, first + static_cast<std::ptrdiff_t>(row_bytes));
  }
  if (png.color_type != 3) return image;
  std::vector<std::uint8_t> colors;
  for (const std::uint8_t index : image.pixels) {
    if (3U * index + 2 >= png.palette.size()) unreadable(path, "a colour is not in its palette");
    colors.insert(colors.end(), png.palette.begin() + 3 * index, png.palette.begin() + 3 * index + 3);
  }
  image.pixels = std::move(colors);
  image.format = eightfold::PixelFormat::rgb;
  return image;
}

}  // namespace programs
