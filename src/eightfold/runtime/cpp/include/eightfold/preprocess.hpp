// Purpose: how an image becomes one row of a model's input, and the way back for boxes. The same definition
// as eightfold.Preprocess in Python: the pixels agree exactly with its reference. Thread safety: a
// Preprocessor may be shared; each thread brings its own PreprocessScratch.
//
//   eightfold::Preprocessor preprocessor(engine.preprocessing());
//   std::vector<float> tensor(preprocessor.bytes() / sizeof(float));
//   eightfold::Placement placement = preprocessor.run(image, tensor.data());
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "eightfold/export.h"
#include "eightfold/image.hpp"

namespace eightfold {

enum class Resize { stretch, letterbox, center_crop };
enum class Interpolation { bilinear, area, bicubic };
enum class Anchor { center, top_left };
enum class Color { rgb, bgr, grey, as_is };
enum class Layout { nchw, nhwc };

struct Size {
  int height = 0;
  int width = 0;
};
inline bool operator==(Size a, Size b) { return a.height == b.height && a.width == b.width; }
inline bool operator!=(Size a, Size b) { return !(a == b); }
EIGHTFOLD_EXPORT std::string text_of(Size size);  // HEIGHTxWIDTH

constexpr int kLargestSide = 1 << 16;  // of an image and of a tensor
constexpr int kMostChannels = 512;

// The tensor is (pixel * scale - mean) / std per channel, in the order of `color`; the pixels themselves
// where it is of bytes.
struct Preprocess {
  int height = 0;
  int width = 0;
  Resize resize = Resize::stretch;
  Interpolation interpolation = Interpolation::bilinear;
  bool antialias = false;
  Anchor anchor = Anchor::center;
  int pad_value = 114;
  int shorter_side = 0;  // centre crop: the shorter side is resized to this; 0: the larger side of the tensor
  Color color = Color::rgb;
  int stored_channels = 0;              // of images that are taken as they are
  PixelType pixels = PixelType::uint8;  // of the images
  double scale = 1.0 / 255;
  std::vector<double> mean = {0};  // one entry, or one per channel
  std::vector<double> std = {1};
  Layout layout = Layout::nchw;
  bool bytes = false;  // the tensor holds uint8 instead of float

  int channels() const { return color == Color::as_is ? stored_channels : color == Color::grey ? 1 : 3; }
  int largest_pixel() const { return pixels == PixelType::uint16 ? 65535 : 255; }
  // The same for a tensor of another size: shorter_side grows and shrinks with the larger of its sides.
  // Throws Error (usage) for sides that no tensor can have.
  EIGHTFOLD_EXPORT Preprocess at_size(Size size) const;
};

// An image of `source` pixels is resized to `resized`, and its top left corner is put at (top, left) of the
// tensor; negative where it is cropped. Coordinates are continuous: pixel i covers [i, i + 1).
struct EIGHTFOLD_EXPORT Placement {
  Size source;
  Size resized;
  int top = 0;
  int left = 0;
  Size tensor;

  // Tensor -> image, cut to the image.
  double x_to_image(double x) const;
  double y_to_image(double y) const;
};

EIGHTFOLD_EXPORT Placement place(const Preprocess& preprocess, int height, int width);

namespace detail {
class Normalizer;
}
class Preprocessor;

// Rows [first, last) of a tensor.
struct RowRange {
  int first = 0;
  int last = 0;
};

// Buffers that one thread reuses from image to image: the steady state allocates nothing.
class EIGHTFOLD_EXPORT PreprocessScratch {
 public:
  PreprocessScratch();
  ~PreprocessScratch();
  PreprocessScratch(PreprocessScratch&&) noexcept;
  PreprocessScratch(const PreprocessScratch&) = delete;
  PreprocessScratch& operator=(const PreprocessScratch&) = delete;
  PreprocessScratch& operator=(PreprocessScratch&&) noexcept;

 private:
  friend class Preprocessor;
  struct State;
  std::unique_ptr<State> state_;
};

class EIGHTFOLD_EXPORT Preprocessor {
 public:
  explicit Preprocessor(Preprocess preprocess);
  Preprocessor(Preprocessor&&) noexcept;
  Preprocessor(const Preprocessor&) = delete;
  Preprocessor& operator=(const Preprocessor&) = delete;
  Preprocessor& operator=(Preprocessor&&) noexcept;
  ~Preprocessor();

  const Preprocess& definition() const { return preprocess_; }
  // Size of one image's tensor.
  std::size_t bytes() const;

  // Writes the tensor of one image to `tensor`, which holds bytes() bytes. Throws Error (image).
  Placement run(const ImageView& image, void* tensor, PreprocessScratch& scratch) const;
  Placement run(const ImageView& image, void* tensor) const;
  // Some rows of it only, so that threads can share an image: worth it where shares_rows().
  Placement run(const ImageView& image, void* tensor, PreprocessScratch& scratch, RowRange rows) const;
  bool shares_rows() const;

 private:
  Preprocess preprocess_;
  std::unique_ptr<detail::Normalizer> normalizer_;
};

}  // namespace eightfold
