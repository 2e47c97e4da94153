// Purpose: which files an ONNX graph reads besides itself, found in its bytes. ONNX Runtime follows the
// locations of external weights, in some versions out of the folder; so whoever loads a graph from others
// looks here first. The same rules as in onnx_references.py.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "eightfold/span.hpp"

namespace eightfold::detail {

// Part of a file that holds a tensor, in bytes; a length of 0 stands for all that follows the offset.
struct OnnxReference {
  std::string location;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};

// The bytes are no ONNX graph; what() completes "is damaged: ...".
struct NotOnnx : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Every reference to a further file, in subgraphs, functions and attributes as well. Throws NotOnnx where the
// file cannot be followed, or holds a reference that readers might take differently.
std::vector<OnnxReference> references_in(span<const std::uint8_t> model);

}  // namespace eightfold::detail
