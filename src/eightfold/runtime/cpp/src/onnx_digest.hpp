// Purpose: one digest of an ONNX file and its files of weights, as the records of engines state it.
#pragma once

#include <string>

namespace eightfold::detail {

// SHA-256 of the file; where weights lie outside it, of the digests of all its files, sorted by name. The
// same as Python's sha256_of_onnx. Throws Error (integrity) where a file cannot be read or is no
// graph.
std::string sha256_of_onnx(const std::string& path);

}  // namespace eightfold::detail
