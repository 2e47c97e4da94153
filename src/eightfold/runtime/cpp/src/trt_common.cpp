#include "trt_common.hpp"

#include "eightfold/error.hpp"

namespace eightfold::detail {
namespace {

constexpr std::size_t kMostMessages = 1000;

const char* name_of_severity(nvinfer1::ILogger::Severity severity) {
  switch (severity) {
    case nvinfer1::ILogger::Severity::kINTERNAL_ERROR:
      return "internal error";
    case nvinfer1::ILogger::Severity::kERROR:
      return "error";
    case nvinfer1::ILogger::Severity::kWARNING:
      return "warning";
    default:
      return "info";
  }
}

}  // namespace

void TrtLogger::log(Severity severity, const char* message) noexcept {
  if (severity > least_) return;
  try {
    const std::lock_guard<std::mutex> guard(lock_);
    if (severity <= Severity::kERROR) last_error_ = message;
    if (messages_.size() < kMostMessages)
      messages_.push_back(std::string(name_of_severity(severity)) + ": " + message);
  } catch (
      ...) {  // NOLINT(bugprone-empty-catch): no memory left for a message is no reason to end the process
  }
}

std::vector<std::string> TrtLogger::messages() const {
  const std::lock_guard<std::mutex> guard(lock_);
  return messages_;
}

std::string TrtLogger::reason() const {
  const std::lock_guard<std::mutex> guard(lock_);
  return last_error_.empty() ? "it gave no reason" : last_error_;
}

std::string trt_library_version() {
  const int version = getInferLibVersion();
  // One digit for the minor version up to 8.x, two from 10 on.
  const int thousand = version >= 100000 ? 10000 : 1000;
  const int hundred = 100;
  return std::to_string(version / thousand) + "." + std::to_string(version % thousand / hundred) + "." +
         std::to_string(version % hundred);
}

std::string compute_capability(int device) {
  int major = 0;
  int minor = 0;
  check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
             "read the GPU's capability");
  check_cuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device),
             "read the GPU's capability");
  return std::to_string(major) + "." + std::to_string(minor);
}

std::string device_name(int device) {
  cudaDeviceProp properties = {};
  check_cuda(cudaGetDeviceProperties(&properties, device), "read the GPU's name");
  return properties.name;
}

void check_cuda(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw Error(ErrorCode::backend,
              std::string("CUDA cannot ") + what + " (" + cudaGetErrorString(status) + ")", "",
              status == cudaErrorMemoryAllocation ? "free device memory" : "run: eightfold doctor");
}

DataType type_from(nvinfer1::DataType type, const std::string& name) {
  switch (type) {
    case nvinfer1::DataType::kFLOAT:
      return DataType::float32;
    case nvinfer1::DataType::kHALF:
      return DataType::float16;
    case nvinfer1::DataType::kINT8:
      return DataType::int8;
    case nvinfer1::DataType::kINT32:
      return DataType::int32;
    case nvinfer1::DataType::kBOOL:
      return DataType::boolean;
#if EIGHTFOLD_TRT_NAMED_TENSORS
    case nvinfer1::DataType::kUINT8:
      return DataType::uint8;
#endif
#if NV_TENSORRT_MAJOR >= 10
    case nvinfer1::DataType::kINT64:
      return DataType::int64;
#endif
    default:
      throw Error(ErrorCode::backend,
                  "'" + name + "' has TensorRT's element type " + std::to_string(static_cast<int>(type)),
                  "float32, float16, uint8, int8, int32, int64, bool");
  }
}

TensorSpec spec_from(const std::string& name, nvinfer1::DataType type, const nvinfer1::Dims& dims) {
  TensorSpec spec = {name, type_from(type, name), {}};
  for (int i = 0; i < dims.nbDims; ++i) {
    const auto side = static_cast<std::int64_t>(dims.d[i]);
    if (side < 1) {
      throw Error(ErrorCode::backend, "'" + name + "' has a shape that is not fixed", "fixed sizes",
                  "export it with a fixed batch and image size");
    }
    spec.shape.push_back(side);
  }
  return spec;
}

}  // namespace eightfold::detail
