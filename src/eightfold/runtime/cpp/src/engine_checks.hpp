// Purpose: what an engine refuses: options, models that are not what the manifest says, and what callers
// pass. Every function throws Error.
#pragma once

#include <cstddef>
#include <vector>

#include "eightfold/engine.hpp"
#include "eightfold/manifest.hpp"
#include "eightfold/preprocess.hpp"

namespace eightfold::detail {

void check_options(const EngineOptions& options);

// A loaded model's tensors against the manifest's.
void check_same(const std::vector<TensorSpec>& stated, const std::vector<TensorSpec>& seen,
                const Artifact& artifact);

// That one input takes what the preprocessor makes.
void check_image_input(const std::vector<TensorSpec>& inputs, const Preprocessor& preprocessor, int batch);

// `rows` rows of tensors that a caller made, for an artifact of any batch size.
void check_tensors(span<const TensorView> views, std::size_t rows, const Artifact& artifact);

// That all batch sizes give the same outputs: a decoder is made once, for all of them.
void check_alike(const std::vector<Artifact>& artifacts);

// Bytes of one row of a tensor whose first side is the batch.
std::size_t row_bytes_of(const TensorSpec& spec, int batch);

}  // namespace eightfold::detail
