// Purpose: what the TensorRT session and the engine builder share. The only places that include TensorRT's
// and CUDA's headers are the files that include this one.
#pragma once

#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <mutex>
#include <string>
#include <vector>

#include "eightfold/manifest.hpp"

#if NV_TENSORRT_MAJOR < 8 || (NV_TENSORRT_MAJOR == 8 && NV_TENSORRT_MINOR < 2)
#error "eightfold needs TensorRT 8.2 or later: update JetPack to 4.6.1"
#endif
// Tensors have names since 8.5, and bindings are gone in 10.
#define EIGHTFOLD_TRT_NAMED_TENSORS \
  (NV_TENSORRT_MAJOR > 8 || (NV_TENSORRT_MAJOR == 8 && NV_TENSORRT_MINOR >= 5))
// Engines that run on later versions or on other GPUs, and optimization levels, came with 8.6.
#define EIGHTFOLD_TRT_COMPATIBILITY \
  (NV_TENSORRT_MAJOR > 8 || (NV_TENSORRT_MAJOR == 8 && NV_TENSORRT_MINOR >= 6))
// Engines without weights came with 10.0.
#define EIGHTFOLD_TRT_STRIPPING (NV_TENSORRT_MAJOR >= 10)
// Precision is a matter of flags before 11, and of the graph's own types from then on.
#define EIGHTFOLD_TRT_PRECISION_FLAGS (NV_TENSORRT_MAJOR < 11)

namespace eightfold::detail {

// Keeps what TensorRT says instead of printing it. Thread safe: TensorRT logs from threads of its own.
class TrtLogger : public nvinfer1::ILogger {
 public:
  explicit TrtLogger(Severity least) : least_(least) {}
  void log(Severity severity, const char* message) noexcept override;

  // All messages so far, each with its severity in front.
  std::vector<std::string> messages() const;
  // The last error, for messages of our own; "it gave no reason" where there was none.
  std::string reason() const;

 private:
  Severity least_;
  mutable std::mutex lock_;
  std::vector<std::string> messages_;
  std::string last_error_;
};

// The version of the library that is loaded, "10.3.0".
std::string trt_library_version();
// "8.7", of a device. Throws Error (backend).
std::string compute_capability(int device);

// "Orin", "NVIDIA GeForce RTX 3060". Throws Error (backend).
std::string device_name(int device);

void check_cuda(cudaError_t status, const char* what);

// Throws Error (backend) for a type that this library does not handle.
DataType type_from(nvinfer1::DataType type, const std::string& name);
TensorSpec spec_from(const std::string& name, nvinfer1::DataType type, const nvinfer1::Dims& dims);

}  // namespace eightfold::detail
