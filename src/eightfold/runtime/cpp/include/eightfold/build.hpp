// Purpose: build a TensorRT engine from an ONNX file, on the board that will run it. Part of builds with
// TensorRT only. Beside the engine, which is a plain one that every tool can load, lies `<engine>.json`: how
// it was built.
//
//   eightfold::BuildReport report = eightfold::build_engine({"model.onnx", "model.engine", Precision::fp16});
#pragma once

#include <string>
#include <vector>

#include "eightfold/export.h"
#include "eightfold/manifest.hpp"

namespace eightfold {

struct BuildOptions {
  std::string onnx_path;
  std::string engine_path;
  // fp32; fp16 and int8 as flags up to TensorRT 10 (int8 needs a graph with Q/DQ). TensorRT 11 goes by the
  // types in the graph alone and builds what the graph says: the precision is recorded only.
  Precision precision = Precision::fp16;
  std::size_t workspace_mib = 0;  // 0: TensorRT's own limit
  // Read if it is there, and written; empty: none. Builder, version and GPU are added to its name: "a.cache"
  // becomes "a.tensorrt-10.3.0-Orin.cache".
  std::string timing_cache_path;
  int dla_core = -1;  // run what can on this accelerator, the rest on the GPU; -1: GPU alone
  int device = 0;
  // Libraries to take kernels from, such as CUDNN; empty: TensorRT's own choice.
  std::vector<std::string> tactic_sources;
  bool refittable = false;  // weights can be replaced later
  bool strip_weights =
      false;                 // from TensorRT 10.0 on: they are left out, for `eightfold refit` to bring back
  bool gpu_fallback = true;  // otherwise what the accelerator does not take fails the build
  // From TensorRT 8.6 on, before which they are refused:
  int optimization_level = -1;       // 0 (fast build) to 5 (fast engine); -1: TensorRT's own
  bool version_compatible = false;   // runs on later versions, too; brings machine code of the host along
  bool hardware_compatible = false;  // runs on every GPU from Ampere on; not on Jetson
};

struct BuildReport {
  std::string version;  // of TensorRT
  double seconds = 0;
  std::size_t bytes = 0;
  std::vector<std::string> messages;  // what the parser and the builder said
};

// Writes the engine and its sidecar whole or not at all. Throws Error (build).
EIGHTFOLD_EXPORT BuildReport build_engine(const BuildOptions& options);

}  // namespace eightfold
