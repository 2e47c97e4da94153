#include "eightfold/preprocess.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "eightfold/error.hpp"
#include "resizer.hpp"
#include "tensor_writer.hpp"

namespace eightfold {
namespace {

using detail::Pixels;
using detail::Window;

const char* name_of(PixelType type) { return type == PixelType::uint16 ? "uint16" : "uint8"; }

void check_memory(const ImageView& image) {
  if (image.row_bytes() < image.packed_row_bytes()) {
    throw Error(ErrorCode::image, "a stride of " + std::to_string(image.stride) + " bytes",
                "0, or at least the " + std::to_string(image.packed_row_bytes()) + " bytes of a row");
  }
  const bool odd = (reinterpret_cast<std::uintptr_t>(image.data) | image.row_bytes()) % 2 != 0;
  if (image.type == PixelType::uint16 && odd)
    throw Error(ErrorCode::image, "16-bit pixels at an odd address or stride", "even ones");
}

void check_kind(const ImageView& image, const Preprocess& preprocess) {
  const bool as_is = preprocess.color == Color::as_is;
  if (as_is ? image.channels() != preprocess.channels() : image.format == PixelFormat::stored) {
    throw Error(ErrorCode::image, "an image of " + std::to_string(image.channels()) + " channels",
                as_is ? std::to_string(preprocess.channels()) + ", as the preprocessing of the bundle says"
                      : "grey, RGB or RGBA");
  }
  if (image.type != preprocess.pixels) {
    throw Error(
        ErrorCode::image, std::string("an image of type ") + name_of(image.type),
        std::string(name_of(preprocess.pixels)) + ", as the preprocessing of the bundle says",
        "give the Preprocess pixels: uint16 and the scale of the images' depth, or convert the image");
  }
}

void check(const ImageView& image, const Preprocess& preprocess) {
  const std::string size = std::to_string(image.width) + "x" + std::to_string(image.height);
  if (image.data == nullptr || image.width < 1 || image.height < 1) {
    throw Error(ErrorCode::image, "an image of zero size, " + size, "at least one pixel");
  }
  if (image.width > kLargestSide || image.height > kLargestSide) {
    throw Error(ErrorCode::image, "an image of " + size + " pixels", "at most 65536 pixels a side");
  }
  const auto format = static_cast<int>(image.format);
  if (format < static_cast<int>(PixelFormat::rgb) || format > static_cast<int>(PixelFormat::stored)) {
    throw Error(ErrorCode::image, "pixel format " + std::to_string(format), "0 (rgb) to 5 (stored)");
  }
  const auto type = static_cast<int>(image.type);
  if (type < 0 || type > 1)
    throw Error(ErrorCode::image, "pixel type " + std::to_string(type), "0 (uint8), 1 (uint16)");
  check_kind(image, preprocess);
  check_memory(image);
}

bool is_bgr(PixelFormat format) { return format == PixelFormat::bgr || format == PixelFormat::bgra; }

Pixels pixels_of(const ImageView& image, bool as_is) {
  const int channels = image.channels();
  return {image.data,
          {image.height, image.width},
          image.row_bytes(),
          channels * static_cast<int>(bytes_of(image.type)),
          as_is ? channels : std::min(channels, 3),
          image.type};
}

int checked_side(std::int64_t side, const char* name) {
  if (side >= 1 && side <= kLargestSide) return static_cast<int>(side);
  throw Error(ErrorCode::usage, std::string(name) + " " + std::to_string(side),
              "1 to " + std::to_string(kLargestSide) + " pixels");
}

// Pillow's ITU-R 601-2 luma, exact in integers: of 16 bits, too, it fits 32.
template <typename Sample>
void luma_of(const Pixels& color, int red, Sample* luma) {
  const int step = color.pixel_bytes / static_cast<int>(sizeof(Sample));
  for (int y = 0; y < color.size.height; ++y) {
    const auto* pixel =
        reinterpret_cast<const Sample*>(color.data + static_cast<std::size_t>(y) * color.row_bytes);
    for (int x = 0; x < color.size.width; ++x, pixel += step) {
      const std::uint32_t sum = 19595U * pixel[red] + 38470U * pixel[1] + 7471U * pixel[2 - red];
      *luma++ = static_cast<Sample>((sum + 32768U) >> 16U);
    }
  }
}

Pixels grey_of(const ImageView& image, std::vector<std::uint8_t>& buffer) {
  const Pixels color = pixels_of(image, false);
  if (color.channels == 1) return color;
  const std::size_t bytes = bytes_of(image.type);
  const std::size_t row_bytes = static_cast<std::size_t>(image.width) * bytes;
  buffer.resize(row_bytes * static_cast<std::size_t>(image.height));
  const int red = is_bgr(image.format) ? 2 : 0;
  if (image.type == PixelType::uint8) {
    luma_of(color, red, buffer.data());
  } else {
    luma_of(color, red, reinterpret_cast<std::uint16_t*>(buffer.data()));
  }
  return {buffer.data(), color.size, row_bytes, static_cast<int>(bytes), 1, image.type};
}

Placement letterbox(const Preprocess& preprocess, int height, int width) {
  const double ratio = std::min(static_cast<double>(preprocess.height) / height,
                                static_cast<double>(preprocess.width) / width);
  Placement placement = {{height, width}, {}, 0, 0, {preprocess.height, preprocess.width}};
  placement.resized = {std::max(1, static_cast<int>(std::nearbyint(height * ratio))),
                       std::max(1, static_cast<int>(std::nearbyint(width * ratio)))};
  if (preprocess.anchor == Anchor::center) {
    placement.top = (preprocess.height - placement.resized.height) / 2;
    placement.left = (preprocess.width - placement.resized.width) / 2;
  }
  return placement;
}

Placement center_crop(const Preprocess& preprocess, int height, int width) {
  const int side =
      preprocess.shorter_side > 0 ? preprocess.shorter_side : std::max(preprocess.height, preprocess.width);
  const double longer = static_cast<double>(side) * std::max(height, width) / std::min(height, width);
  if (longer > kLargestSide) {
    throw Error(
        ErrorCode::image,
        "an image of " + std::to_string(width) + "x" + std::to_string(height) + " pixels, too long to crop",
        "sides that differ less");
  }
  Placement placement = {{height, width}, {}, 0, 0, {preprocess.height, preprocess.width}};
  placement.resized =
      height <= width ? Size{side, static_cast<int>(longer)} : Size{static_cast<int>(longer), side};
  placement.top = -static_cast<int>(std::nearbyint((placement.resized.height - preprocess.height) / 2.0));
  placement.left = -static_cast<int>(std::nearbyint((placement.resized.width - preprocess.width) / 2.0));
  return placement;
}

// The rows and columns that tensor and resized image share, in the coordinates of the image.
Window overlap(const Placement& placement) {
  const auto low = [](int offset) { return std::max(0, -offset); };
  const auto high = [](int offset, int resized, int tensor) { return std::min(resized, tensor - offset); };
  return {low(placement.top), high(placement.top, placement.resized.height, placement.tensor.height),
          low(placement.left), high(placement.left, placement.resized.width, placement.tensor.width)};
}

detail::ChannelOrder channel_order(const Preprocess& preprocess, PixelFormat format, int source_channels) {
  const bool reversed = is_bgr(format) != (preprocess.color == Color::bgr);
  return {source_channels, reversed && preprocess.color != Color::as_is};
}

template <typename T>
void fill(const detail::TensorWriter<T>& writer, const Preprocess& preprocess,
          const detail::ChannelOrder& order, const Pixels& pixels, const Placement& placement, RowRange rows,
          detail::Resizer& resizer) {
  const Window window = overlap(placement);
  const bool grows =
      placement.resized.height > placement.source.height || placement.resized.width > placement.source.width;
  resizer.prepare(pixels, placement.resized, window, detail::kernel_of(preprocess, grows));
  const int padding = preprocess.pad_value;
  const int left = window.left + placement.left;
  const int right = window.right + placement.left;
  for (int y = rows.first; y < rows.last; ++y) {
    const int source_y = y - placement.top;
    if (source_y < window.top || source_y >= window.bottom) {
      writer.pad(y, 0, preprocess.width, padding);
      continue;
    }
    writer.pad(y, 0, left, padding);
    const std::uint8_t* row = resizer.row(pixels, source_y);
    if (pixels.type == PixelType::uint8) {
      writer.row(y, left, row, right - left, order);
    } else {
      writer.row(y, left, reinterpret_cast<const std::uint16_t*>(row), right - left, order);
    }
    writer.pad(y, right, preprocess.width, padding);
  }
}

}  // namespace

std::string text_of(Size size) { return std::to_string(size.height) + "x" + std::to_string(size.width); }

Preprocess Preprocess::at_size(Size size) const {
  Preprocess result = *this;
  result.height = checked_side(size.height, "height");
  result.width = checked_side(size.width, "width");
  if (shorter_side == 0) return result;
  const std::int64_t before = std::max(height, width);
  const std::int64_t after = std::max(size.height, size.width);
  const std::int64_t rounded = (2 * shorter_side * after + before) / (2 * before);
  result.shorter_side = checked_side(std::max(rounded, after), "shorter_side");
  return result;
}

double Placement::x_to_image(double x) const {
  const double scale = static_cast<double>(resized.width) / source.width;
  return std::clamp((x - left) / scale, 0.0, static_cast<double>(source.width));
}

double Placement::y_to_image(double y) const {
  const double scale = static_cast<double>(resized.height) / source.height;
  return std::clamp((y - top) / scale, 0.0, static_cast<double>(source.height));
}

Placement place(const Preprocess& preprocess, int height, int width) {
  if (preprocess.resize == Resize::letterbox) return letterbox(preprocess, height, width);
  if (preprocess.resize == Resize::center_crop) return center_crop(preprocess, height, width);
  const Size tensor = {preprocess.height, preprocess.width};
  return {{height, width}, tensor, 0, 0, tensor};
}

struct PreprocessScratch::State {
  detail::Resizer resizer;
  std::vector<std::uint8_t> grey;
};

PreprocessScratch::PreprocessScratch() : state_(std::make_unique<State>()) {}
PreprocessScratch::~PreprocessScratch() = default;
PreprocessScratch::PreprocessScratch(PreprocessScratch&&) noexcept = default;
PreprocessScratch& PreprocessScratch::operator=(PreprocessScratch&&) noexcept = default;

Preprocessor::Preprocessor(Preprocess preprocess)
    : preprocess_(std::move(preprocess)), normalizer_(std::make_unique<detail::Normalizer>(preprocess_)) {}
Preprocessor::Preprocessor(Preprocessor&&) noexcept = default;
Preprocessor& Preprocessor::operator=(Preprocessor&&) noexcept = default;
Preprocessor::~Preprocessor() = default;

std::size_t Preprocessor::bytes() const {
  const std::size_t elements = static_cast<std::size_t>(preprocess_.height) *
                               static_cast<std::size_t>(preprocess_.width) *
                               static_cast<std::size_t>(preprocess_.channels());
  return preprocess_.bytes ? elements : elements * sizeof(float);
}

bool Preprocessor::shares_rows() const { return preprocess_.color != Color::grey; }

Placement Preprocessor::run(const ImageView& image, void* tensor, PreprocessScratch& scratch) const {
  return run(image, tensor, scratch, {0, preprocess_.height});
}

Placement Preprocessor::run(const ImageView& image, void* tensor, PreprocessScratch& scratch,
                            RowRange rows) const {
  check(image, preprocess_);
  PreprocessScratch::State& state = *scratch.state_;
  const Pixels pixels = preprocess_.color == Color::grey
                            ? grey_of(image, state.grey)
                            : pixels_of(image, preprocess_.color == Color::as_is);
  const Placement placement = place(preprocess_, image.height, image.width);
  const detail::ChannelOrder order = channel_order(preprocess_, image.format, pixels.channels);
  if (preprocess_.bytes) {
    const detail::TensorWriter<std::uint8_t> writer(preprocess_, *normalizer_, tensor);
    fill(writer, preprocess_, order, pixels, placement, rows, state.resizer);
  } else {
    const detail::TensorWriter<float> writer(preprocess_, *normalizer_, tensor);
    fill(writer, preprocess_, order, pixels, placement, rows, state.resizer);
  }
  return placement;
}

Placement Preprocessor::run(const ImageView& image, void* tensor) const {
  PreprocessScratch scratch;
  return run(image, tensor, scratch);
}

}  // namespace eightfold
