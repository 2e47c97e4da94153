#include "image_file.hpp"

#include <cctype>
#include <climits>
#include <fstream>
#include <iterator>
#include <memory>

#include "eightfold/error.hpp"
#include "eightfold/preprocess.hpp"
#include "npy.hpp"
#include "orientation.hpp"
#include "stb_image.hpp"

namespace programs {
namespace {

using Bytes = eightfold::span<const std::uint8_t>;
using eightfold::Error;
using eightfold::ErrorCode;

[[noreturn]] void unreadable(const std::string& path, const std::string& why) {
  throw Error(ErrorCode::image, "cannot read " + path + " (" + why + ")",
              "JPEG, PNG, binary PPM or PGM of 255 levels, or .npy", "convert it first");
}

std::vector<char> content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(ErrorCode::image, "there is no image at '" + path + "'", "a file that can be read");
  if (file.peek() == std::ifstream::traits_type::eof()) unreadable(path, "it is empty, or a directory");
  return {(std::istreambuf_iterator<char>(file)), {}};
}

bool is_netpbm(Bytes bytes) {
  return bytes.size() > 2 && bytes[0] == 'P' && (bytes[1] == '5' || bytes[1] == '6');
}

// A word of a Netpbm header; '#' begins a comment up to the end of the line.
std::string next_word(Bytes bytes, std::size_t& at) {
  std::string word;
  for (bool comment = false; at < bytes.size(); ++at) {
    comment = (comment || bytes[at] == '#') && bytes[at] != '\n';
    const bool blank = comment || std::isspace(bytes[at]) != 0;
    if (blank && !word.empty()) return word;
    if (!blank) word += static_cast<char>(bytes[at]);
  }
  return word;
}

// stb_image neither scales other ranges nor sees that pixels are missing.
void check_netpbm(Bytes bytes, std::size_t pixel_bytes, const std::string& path) {
  std::size_t at = 0;
  for (int i = 0; i < 3; ++i) next_word(bytes, at);
  if (next_word(bytes, at) != "255") unreadable(path, "it has other than 255 levels");
  if (bytes.size() - at < 1 + pixel_bytes) unreadable(path, "it is cut off");
}

struct Free {
  void operator()(void* pixels) const { stbi_image_free(pixels); }
};

Image decoded(Bytes bytes, bool as_stored, const std::string& path) {
  const int size = static_cast<int>(bytes.size());
  Image image;
  if (stbi_info_from_memory(bytes.data(), size, &image.width, &image.height, &image.channels) == 0)
    unreadable(path, "its format is unknown, or its header damaged");
  if (image.width > eightfold::kLargestSide || image.height > eightfold::kLargestSide)
    unreadable(path, "its size is not possible");
  if (!as_stored) image.channels = image.channels <= 2 ? 1 : 3;  // without alpha
  if (is_netpbm(bytes))
    check_netpbm(bytes, image.view().row_bytes() * static_cast<std::size_t>(image.height), path);
  if (stbi_is_16_bit_from_memory(bytes.data(), size) != 0) image.type = eightfold::PixelType::uint16;
  int ignored = 0;
  const auto load = [&](auto* function) -> void* {
    return function(bytes.data(), size, &ignored, &ignored, &ignored, image.channels);
  };
  const std::unique_ptr<void, Free> pixels(image.type == eightfold::PixelType::uint16
                                               ? load(&stbi_load_16_from_memory)
                                               : load(&stbi_load_from_memory));
  if (!pixels) unreadable(path, std::string("damaged or cut off: ") + stbi_failure_reason());
  const auto* first = static_cast<const std::uint8_t*>(pixels.get());
  image.pixels.assign(first, first + image.view().row_bytes() * static_cast<std::size_t>(image.height));
  return image;
}

}  // namespace

eightfold::ImageView Image::view() const {
  using eightfold::PixelFormat;
  const PixelFormat formats[] = {PixelFormat::grey, PixelFormat::stored, PixelFormat::rgb, PixelFormat::rgba};
  const PixelFormat format = channels <= 4 ? formats[channels - 1] : PixelFormat::stored;
  return {pixels.data(), width, height, format, 0, channels, type};
}

Image read_image(const std::string& path, bool as_stored) {
  const std::vector<char> content = content_of(path);
  if (content.size() > INT_MAX) unreadable(path, "it is larger than 2 GiB");
  const Bytes bytes(reinterpret_cast<const std::uint8_t*>(content.data()), content.size());
  if (is_npy(bytes)) return image_from_npy(bytes, path);
  Image image = decoded(bytes, as_stored, path);
  return as_stored ? image : upright(std::move(image), orientation_of(bytes));
}

}  // namespace programs
