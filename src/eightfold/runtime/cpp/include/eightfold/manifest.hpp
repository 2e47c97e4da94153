// Purpose: what a bundle's manifest.json says, as plain structs. See manifest.py, which defines it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "eightfold/export.h"
#include "eightfold/preprocess.hpp"

namespace eightfold {

enum class DataType { float32, float16, uint8, int8, int32, int64, boolean };
EIGHTFOLD_EXPORT std::size_t bytes_of(DataType type);
EIGHTFOLD_EXPORT const char* name_of(DataType type);

struct EIGHTFOLD_EXPORT TensorSpec {
  std::string name;
  DataType type = DataType::float32;
  std::vector<std::int64_t> shape;  // static

  std::size_t elements() const;
  std::size_t bytes() const { return elements() * bytes_of(type); }
};

enum class Format { onnx, engine, openvino };
enum class Precision { fp32, fp16, bf16, int8 };
EIGHTFOLD_EXPORT const char* name_of(Precision precision);

struct Artifact {
  std::string id;
  std::string variant;
  Format format = Format::onnx;
  Precision precision = Precision::fp32;
  std::string target;
  int batch = 1;
  std::string path;
  std::vector<std::string> files;
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
  std::map<std::string, std::string> requirements;
};

struct Task {
  std::string kind;
  std::string decode;
  std::vector<std::string> labels;
  std::string options;  // a JSON object: the decoder's arguments
};

struct FileEntry {
  std::uint64_t bytes = 0;
  std::string sha256;
};

struct Manifest {
  std::string name;
  Task task;
  Preprocess preprocess;
  std::vector<Artifact> artifacts;
  std::map<std::string, FileEntry> files;
  std::map<std::string, std::string> documents;
};

// Height and width of an artifact's only input, an image; none where it takes anything else.
EIGHTFOLD_EXPORT std::optional<Size> size_of(const Artifact& artifact, Layout layout);
// Those of a bundle's artifacts, each once, in the manifest's order.
EIGHTFOLD_EXPORT std::vector<Size> sizes_of(const Manifest& manifest);

// Throws Error (bundle), naming the first key at fault. `source` stands in messages.
EIGHTFOLD_EXPORT Manifest manifest_from_json(const std::string& text, const std::string& source);

}  // namespace eightfold
