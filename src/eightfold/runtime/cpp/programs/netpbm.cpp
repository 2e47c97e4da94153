#include <algorithm>
#include <cctype>
#include <fstream>
#include <iterator>

#include "eightfold/error.hpp"
#include "image_file.hpp"

namespace programs {
namespace {

using eightfold::Error;
using eightfold::ErrorCode;
constexpr int kLargestSide = 1 << 16;

[[noreturn]] void unreadable(const std::string& path, const std::string& why) {
  throw Error(ErrorCode::image, "cannot read " + path + " (" + why + ")",
              "PNG with 8 bits per channel, not interlaced; binary PPM or PGM", "convert it first");
}

// A number of the header; '#' begins a comment up to the end of the line.
int header_number(eightfold::span<const std::uint8_t> bytes, std::size_t& at, const std::string& path) {
  while (at < bytes.size() && (std::isspace(bytes[at]) != 0 || bytes[at] == '#')) {
    if (bytes[at] == '#') {
      while (at < bytes.size() && bytes[at] != '\n') ++at;
    } else {
      ++at;
    }
  }
  int number = 0;
  for (; at < bytes.size() && std::isdigit(bytes[at]) != 0; ++at) {
    number = std::min(number * 10 + (bytes[at] - '0'), kLargestSide + 1);
  }
  if (number < 1 || number > kLargestSide) unreadable(path, "its header is damaged");
  return number;
}

}  // namespace

bool is_netpbm(eightfold::span<const std::uint8_t> bytes) {
  return bytes.size() > 2 && bytes[0] == 'P' && (bytes[1] == '5' || bytes[1] == '6');
}

Image image_from_netpbm(eightfold::span<const std::uint8_t> bytes, const std::string& path) {
  Image image;
  image.format = bytes[1] == '5' ? eightfold::PixelFormat::grey : eightfold::PixelFormat::rgb;
  std::size_t at = 2;
  image.width = header_number(bytes, at, path);
  image.height = header_number(bytes, at, path);
  if (header_number(bytes, at, path) != 255) unreadable(path, "it has other than 255 levels");
  ++at;  // one blank
  const std::size_t size = image.view().row_bytes() * static_cast<std::size_t>(image.height);
  if (at > bytes.size() || bytes.size() - at < size) unreadable(path, "it is cut off");
  image.pixels.assign(bytes.data() + at, bytes.data() + at + size);
  return image;
}

Image read_image(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(ErrorCode::image, "there is no image at '" + path + "'", "a file that can be read");
  if (file.peek() == std::ifstream::traits_type::eof()) unreadable(path, "it is empty, or a directory");
  const std::vector<char> content((std::istreambuf_iterator<char>(file)), {});
  const eightfold::span<const std::uint8_t> bytes(reinterpret_cast<const std::uint8_t*>(content.data()),
                                                  content.size());
  if (is_png(bytes)) return image_from_png(bytes, path);
  if (is_netpbm(bytes)) return image_from_netpbm(bytes, path);
  unreadable(path, "its format is unknown");
}

}  // namespace programs
