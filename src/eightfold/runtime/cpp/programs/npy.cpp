// NumPy Enhancement Proposal 1: a magic string, a version, the length of a header, the header, the array.
#include "npy.hpp"

#include <cstdio>
#include <cstring>

#include "eightfold/error.hpp"
#include "eightfold/preprocess.hpp"

namespace programs {
namespace {

constexpr char kMagic[] = "\x93NUMPY";
constexpr std::size_t kMagicBytes = 6;

[[noreturn]] void unreadable(const std::string& path, const std::string& why) {
  throw eightfold::Error(eightfold::ErrorCode::image, "cannot read " + path + " (" + why + ")",
                         "an array (height, width) or (height, width, channels) of uint8 or uint16",
                         "scale it to one of these types");
}

// What follows a key of the header, which is the text of a Python dictionary.
std::string value_of(const std::string& header, const std::string& key) {
  const std::size_t at = header.find("'" + key + "':");
  return at == std::string::npos ? "" : header.substr(header.find_first_not_of(' ', at + key.size() + 3));
}

bool starts_with(const std::string& text, const std::string& start) { return text.rfind(start, 0) == 0; }

}  // namespace

bool is_npy(eightfold::span<const std::uint8_t> bytes) {
  return bytes.size() > 12 && std::memcmp(bytes.data(), kMagic, kMagicBytes) == 0;
}

Image image_from_npy(eightfold::span<const std::uint8_t> bytes, const std::string& path) {
  const bool first_version = bytes[kMagicBytes] == 1;
  std::size_t header_bytes = bytes[8] + 256U * bytes[9];
  if (!first_version) header_bytes += 65536U * bytes[10] + 16777216U * bytes[11];
  const std::size_t start = first_version ? 10 : 12;
  if (header_bytes > bytes.size() - start) unreadable(path, "it is cut off");
  const std::string header(reinterpret_cast<const char*>(bytes.data() + start), header_bytes);

  Image image;
  const std::string type = value_of(header, "descr");
  if (starts_with(type, "'<u2'"))
    image.type = eightfold::PixelType::uint16;
  else if (!starts_with(type, "'|u1'"))
    unreadable(path, "its values have another type");
  if (!starts_with(value_of(header, "fortran_order"), "False")) unreadable(path, "its order is Fortran's");
  const std::string shape = value_of(header, "shape");
  int end = 0;
  if (std::sscanf(shape.c_str(), "(%d, %d, %d)%n", &image.height, &image.width, &image.channels, &end) != 3 ||
      end == 0) {
    image.channels = 1;
    if (std::sscanf(shape.c_str(), "(%d, %d)%n", &image.height, &image.width, &end) != 2 || end == 0)
      unreadable(path, "it is no image");
  }
  const auto fits = [](int side, int most) { return side >= 1 && side <= most; };
  if (!fits(image.height, eightfold::kLargestSide) || !fits(image.width, eightfold::kLargestSide) ||
      !fits(image.channels, eightfold::kMostChannels))
    unreadable(path, "its size is not possible");
  const std::size_t size = image.view().row_bytes() * static_cast<std::size_t>(image.height);
  const std::size_t at = start + header_bytes;
  if (bytes.size() - at < size) unreadable(path, "it is cut off");
  image.pixels.assign(bytes.data() + at, bytes.data() + at + size);
  return image;
}

}  // namespace programs
