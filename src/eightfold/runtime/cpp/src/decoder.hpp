// Purpose: what turns a model's outputs into predictions. Definitions: docs/decoders.md.
// Thread safety: a decoder may be shared; each thread brings its own DecodeScratch.
#pragma once

#include <memory>
#include <vector>

#include "eightfold/manifest.hpp"
#include "eightfold/prediction.hpp"
#include "eightfold/preprocess.hpp"
#include "eightfold/span.hpp"

namespace eightfold::detail {

struct Output {
  const TensorSpec* spec = nullptr;
  const void* data = nullptr;
};

struct DecodeScratch;

class Decoder {
 public:
  Decoder() = default;
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
  virtual ~Decoder() = default;

  // One row of the batch.
  virtual void decode(span<const Output> outputs, std::size_t row, const Placement& placement,
                      DecodeScratch& scratch, Prediction& prediction) const = 0;
};

// What a decoder is made for: the model's outputs, whose first side is the batch, and the size that images
// are given.
struct DecoderInputs {
  const std::vector<TensorSpec>& outputs;
  Size tensor;
};

// Throws Error (bundle) for an unknown decoder, a wrong option, or outputs that it cannot decode.
std::unique_ptr<Decoder> decoder_of(const Task& task, const DecoderInputs& inputs);

// The output of that name, or the only one there is; throws Error (bundle) where there is none.
std::size_t output_of(const DecoderInputs& inputs, const std::string& name);

// One row of an output as floats: the output's own memory where it is of floats, else converted into the
// scratch.
span<const float> row_as_floats(const Output& output, std::size_t index, std::size_t row,
                                DecodeScratch& scratch);

}  // namespace eightfold::detail
