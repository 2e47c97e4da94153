#include "image_file.hpp"

#include <cctype>
#include <climits>
#include <fstream>
#include <iterator>
#include <memory>

#include "eightfold/error.hpp"
#include "eightfold/preprocess.hpp"
#include "orientation.hpp"
#include "stb_image.hpp"

namespace programs {
namespace {

using Bytes = eightfold::span<const std::uint8_t>;
using eightfold::Error;
using eightfold::ErrorCode;

[[noreturn]] void unreadable(const std::string& path, const std::string& why) {
  throw Error(ErrorCode::image, "cannot read " + path + " (" + why + ")",
              "JPEG, or PNG, binary PPM or PGM with 8 bits per channel", "convert it first");
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

}  // namespace

Image read_image(const std::string& path) {
  const std::vector<char> content = content_of(path);
  if (content.size() > INT_MAX) unreadable(path, "it is larger than 2 GiB");
  const Bytes bytes(reinterpret_cast<const std::uint8_t*>(content.data()), content.size());
  const int size = static_cast<int>(bytes.size());
  Image image;
  int channels = 0;
  if (stbi_info_from_memory(bytes.data(), size, &image.width, &image.height, &channels) == 0)
    unreadable(path, "its format is unknown, or its header damaged");
  if (image.width > eightfold::kLargestSide || image.height > eightfold::kLargestSide)
    unreadable(path, "its size is not possible");
  if (stbi_is_16_bit_from_memory(bytes.data(), size) != 0) unreadable(path, "it has 16 bits per channel");
  const int wanted = channels <= 2 ? 1 : 3;  // without alpha
  image.format = wanted == 1 ? eightfold::PixelFormat::grey : eightfold::PixelFormat::rgb;
  const auto pixel_bytes = image.view().row_bytes() * static_cast<std::size_t>(image.height);
  if (is_netpbm(bytes)) check_netpbm(bytes, pixel_bytes, path);
  const std::unique_ptr<stbi_uc, decltype(&stbi_image_free)> pixels(
      stbi_load_from_memory(bytes.data(), size, &image.width, &image.height, &channels, wanted),
      &stbi_image_free);
  if (!pixels) unreadable(path, std::string("damaged or cut off: ") + stbi_failure_reason());
  image.pixels.assign(pixels.get(), pixels.get() + pixel_bytes);
  return upright(std::move(image), orientation_of(bytes));
}

}  // namespace programs
