// Purpose: run a bundle, from images to answers, with the bundle's own preprocessing and decoding.
// Ownership: an Engine is a move-only handle; it frees models and buffers when it goes away.
// Thread safety: const member functions may be called from any thread; requests beyond `in_flight` wait.
//
//   eightfold::Engine engine = eightfold::Engine::load("model.eightfold");
//   eightfold::ImageView frame{pixels, 1920, 1080, eightfold::PixelFormat::bgr};
//   std::vector<eightfold::Prediction> results = engine.run({frame});
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "eightfold/bundle.hpp"
#include "eightfold/error.hpp"
#include "eightfold/export.h"
#include "eightfold/image.hpp"
#include "eightfold/prediction.hpp"
#include "eightfold/span.hpp"

namespace eightfold {

struct EngineOptions {
  std::string backend = "auto";    // "onnxruntime", "tensorrt"
  std::string precision = "auto";  // "fp32", "fp16", "bf16", "int8"
  std::string variant = "auto";    // "pruned", "baseline", ...; auto prefers what was compressed
  int batch = 0;                   // only this batch size; 0: all that there are, with the least padding
  int threads = 0;                 // of a CPU back end for one request; 0: its own rule
  int preprocess_threads = 1;      // that share the images of a request
  int in_flight = 0;  // requests that may run at once, each with its own buffers; 0: one per processor
  int device = 0;     // number of the accelerator
  std::string provider = "cpu";  // onnxruntime: "cpu", "cuda", "tensorrt"
  std::string public_key;        // PEM file of the key that must have signed the bundle; empty: any will do
  int height = 0;  // of the images that the model takes; 0: the size that the manifest's preprocessing has
  int width = 0;
};

struct BackendInfo {
  std::string name;
  std::string version;
  std::string absent;  // why it cannot be used on this machine; empty where it can
};

// The back ends of this build of the library.
EIGHTFOLD_EXPORT std::vector<BackendInfo> backends();

// One input of Engine::run_tensors: `rows` rows of the shape that the model has. Type and shape are compared
// with the model's where they are given.
struct TensorView {
  const void* data = nullptr;
  std::size_t bytes = 0;
  std::optional<DataType> type = std::nullopt;
  span<const std::int64_t> shape = {};
};

// One of its outputs.
struct Tensor {
  TensorSpec spec;  // its first side is the number of rows
  std::vector<std::uint8_t> bytes;
};

class EIGHTFOLD_EXPORT Engine {
 public:
  // Opens a bundle and picks what to run in it. Models are loaded when their batch size is first needed;
  // warmup() loads all. Throws Error.
  static Engine load(const std::string& path, const EngineOptions& options = {});

  Engine(Engine&&) noexcept;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  Engine& operator=(Engine&&) noexcept;
  ~Engine();

  // One prediction per image, in the order given. Throws Error.
  std::vector<Prediction> run(span<const ImageView> images) const;
  // The same into existing objects, whose memory is used again.
  void run(span<const ImageView> images, std::vector<Prediction>& predictions) const;

  // Runs tensors that are already preprocessed: one view per input of the model, `rows` rows each, without
  // decoding.
  std::vector<Tensor> run_tensors(span<const TensorView> inputs, std::size_t rows) const;
  // The same into existing objects, whose memory is used again. On a CPU nothing is copied where the rows are
  // a batch size that the bundle has; it is fastest to come again with the same memory.
  void run_tensors(span<const TensorView> inputs, std::size_t rows, std::vector<Tensor>& outputs) const;

  // The preprocessing alone: one row of the model's input per image, input_row_bytes() each, to `tensor`.
  void preprocess(span<const ImageView> images, void* tensor) const;
  std::size_t input_row_bytes() const;

  // Loads every batch size and runs it a few times, so that the first request is as fast as the others.
  void warmup(int runs = 3) const;

  const Manifest& manifest() const;
  // What was picked.
  const std::string& backend() const;
  const std::vector<Artifact>& artifacts() const;  // by batch size, ascending
  const Preprocess& preprocessing() const;         // the manifest's, at the size that was picked
  std::string describe() const;                    // and why
  // The name of a class; its number where the bundle has no name for it.
  std::string label(int index) const;

 private:
  struct State;
  explicit Engine(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace eightfold
