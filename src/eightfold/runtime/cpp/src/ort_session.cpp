// ONNX Runtime. The only file that includes its headers.
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cstring>

#include "eightfold/error.hpp"
#include "session.hpp"

namespace eightfold::detail {
namespace {

std::string version() { return OrtGetApiBase()->GetVersionString(); }

// A library older than the headers has no such API.
std::string absent() {
  return OrtGetApiBase()->GetApi(ORT_API_VERSION) != nullptr
             ? ""
             : "libonnxruntime " + version() + " is older than the headers this was built with";
}

// The library must not print: what ONNX Runtime would log is dropped, what fails comes back as an exception.
void drop_message(void*, OrtLoggingLevel, const char*, const char*, const char*, const char*) {}

// Never destroyed: an engine that a program keeps until its end, or an interpreter forgets, still has threads
// then.
Ort::Env& environment() {
  static auto* const env = new Ort::Env(ORT_LOGGING_LEVEL_FATAL, "eightfold", drop_message, nullptr);
  return *env;
}

std::string first_line(const char* message) {
  const std::string text(message);
  return text.substr(0, std::min<std::size_t>(text.find('\n'), 300));
}

DataType type_from(ONNXTensorElementDataType type, const std::string& name) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
      return DataType::float32;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16:
      return DataType::float16;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8:
      return DataType::uint8;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8:
      return DataType::int8;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32:
      return DataType::int32;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64:
      return DataType::int64;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL:
      return DataType::boolean;
    default:
      throw Error(ErrorCode::backend,
                  "'" + name + "' has element type " + std::to_string(static_cast<int>(type)),
                  "float32, float16, uint8, int8, int32, int64, bool");
  }
}

ONNXTensorElementDataType onnx_type(DataType type) {
  switch (type) {
    case DataType::float32:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    case DataType::float16:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
    case DataType::uint8:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
    case DataType::int8:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8;
    case DataType::int32:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
    case DataType::int64:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
    default:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL;
  }
}

TensorSpec spec_from(std::string name, const Ort::TypeInfo& info) {
  if (info.GetONNXType() != ONNX_TYPE_TENSOR) {
    throw Error(ErrorCode::backend, "'" + name + "' is not a tensor", "tensors");
  }
  const auto tensor = info.GetTensorTypeAndShapeInfo();
  TensorSpec spec = {std::move(name), DataType::float32, tensor.GetShape()};
  spec.type = type_from(tensor.GetElementType(), spec.name);
  if (std::any_of(spec.shape.begin(), spec.shape.end(), [](std::int64_t side) { return side < 1; })) {
    throw Error(ErrorCode::backend, "'" + spec.name + "' has a shape that is not fixed", "fixed sizes",
                "export it with a fixed batch and image size");
  }
  return spec;
}

// Whether ONNX Runtime reads bound inputs where they are, or copied them to a device when they were bound.
enum class Memory { host, device };

// One input or output: the slot's own memory, and what is bound at present.
struct Port {
  const TensorSpec* spec;
  Ort::Value own;
  const void* bound;
};

class OrtSlot : public Slot {
 public:
  OrtSlot(Ort::Session& session, const std::vector<TensorSpec>& inputs,
          const std::vector<TensorSpec>& outputs, Memory memory)
      : session_(session), memory_(memory), binding_(session) {
    for (const TensorSpec& spec : inputs) inputs_.push_back(allocated(spec));
    for (const TensorSpec& spec : outputs) outputs_.push_back(allocated(spec));
  }

  void* input(std::size_t index) override { return inputs_[index].own.GetTensorMutableRawData(); }
  const void* output(std::size_t index) const override { return outputs_[index].own.GetTensorRawData(); }

  void run() override {
    for (Port& port : inputs_) bind_input(port, port.own.GetTensorMutableRawData());
    for (Port& port : outputs_) bind_output(port, port.own.GetTensorMutableRawData());
    run_bound();
  }

  void run_on(span<const void* const> inputs, span<void* const> outputs) override {
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      // ONNX Runtime takes a pointer to what it may change for inputs as well, and does not change it.
      void* data = const_cast<void*>(inputs[i]);  // NOLINT(cppcoreguidelines-pro-type-const-cast)
      bind_input(inputs_[i], data);
    }
    for (std::size_t i = 0; i < outputs_.size(); ++i) bind_output(outputs_[i], outputs[i]);
    run_bound();
  }

 private:
  // ONNX Runtime's own allocator aligns as its kernels like it.
  Port allocated(const TensorSpec& spec) const {
    Ort::Value value =
        Ort::Value::CreateTensor(allocator_, spec.shape.data(), spec.shape.size(), onnx_type(spec.type));
    std::memset(value.GetTensorMutableRawData(), 0, spec.bytes());
    return {&spec, std::move(value), nullptr};
  }

  Ort::Value view_of(const TensorSpec& spec, void* data) const {
    return Ort::Value::CreateTensor(cpu_, data, spec.bytes(), spec.shape.data(), spec.shape.size(),
                                    onnx_type(spec.type));
  }

  // What is bound already stays bound: callers mostly come again with the same memory.
  void bind_input(Port& port, void* data) {
    if (port.bound == data && memory_ == Memory::host) return;
    port.bound = nullptr;
    binding_.BindInput(port.spec->name.c_str(), view_of(*port.spec, data));
    port.bound = data;
  }

  void bind_output(Port& port, void* data) {
    if (port.bound == data) return;
    port.bound = nullptr;
    binding_.BindOutput(port.spec->name.c_str(), view_of(*port.spec, data));
    port.bound = data;
  }

  void run_bound() {
    try {
      session_.Run(options_, binding_);
    } catch (const Ort::Exception& error) {
      throw Error(ErrorCode::backend, "onnxruntime failed while running (" + first_line(error.what()) + ")");
    }
  }

  Ort::Session& session_;
  Memory memory_;
  Ort::AllocatorWithDefaultOptions allocator_;
  Ort::MemoryInfo cpu_ = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  Ort::RunOptions options_;
  Ort::IoBinding binding_;
  std::vector<Port> inputs_;
  std::vector<Port> outputs_;
};

class OrtSession : public Session {
 public:
  OrtSession(Ort::Session session, Memory memory) : session_(std::move(session)), memory_(memory) {
    const Ort::AllocatorWithDefaultOptions allocator;
    for (std::size_t i = 0; i < session_.GetInputCount(); ++i) {
      inputs_.push_back(
          spec_from(session_.GetInputNameAllocated(i, allocator).get(), session_.GetInputTypeInfo(i)));
    }
    for (std::size_t i = 0; i < session_.GetOutputCount(); ++i) {
      outputs_.push_back(
          spec_from(session_.GetOutputNameAllocated(i, allocator).get(), session_.GetOutputTypeInfo(i)));
    }
  }

  const std::vector<TensorSpec>& inputs() const override { return inputs_; }
  const std::vector<TensorSpec>& outputs() const override { return outputs_; }
  std::unique_ptr<Slot> new_slot() const override {
    return std::make_unique<OrtSlot>(session_, inputs_, outputs_, memory_);
  }

 private:
  mutable Ort::Session session_;  // its Run may be called from many threads, but is not marked const
  Memory memory_;
  std::vector<TensorSpec> inputs_;
  std::vector<TensorSpec> outputs_;
};

void append_provider(Ort::SessionOptions& session, const EngineOptions& options) {
  if (options.provider == "cuda") {
    OrtCUDAProviderOptions cuda;
    cuda.device_id = options.device;
    session.AppendExecutionProvider_CUDA(cuda);
  } else if (options.provider == "tensorrt") {
    OrtTensorRTProviderOptions tensorrt = {};
    tensorrt.device_id = options.device;
    session.AppendExecutionProvider_TensorRT(tensorrt);
  } else if (options.provider != "cpu") {
    throw Error(ErrorCode::usage, "unknown provider '" + options.provider + "'", "cpu, cuda, tensorrt");
  }
}

Ort::Session load(const Bundle& bundle, const Artifact& artifact, const Ort::SessionOptions& options) {
  const std::vector<std::uint8_t> model = bundle.read(artifact.path);
  bundle.check_further_files(artifact, model);
  if (artifact.files.empty()) return {environment(), model.data(), model.size(), options};
  // External weights are found beside the model's file.
  for (const std::string& name : artifact.files) bundle.unpacked_path(name);
  return {environment(), bundle.unpacked_path(artifact.path).c_str(), options};
}

std::unique_ptr<Session> open(const Bundle& bundle, const Artifact& artifact, const EngineOptions& options) {
  try {
    Ort::SessionOptions session;
    if (options.threads > 0) session.SetIntraOpNumThreads(options.threads);
    append_provider(session, options);
    const Memory memory = options.provider == "cpu" ? Memory::host : Memory::device;
    return std::make_unique<OrtSession>(load(bundle, artifact, session), memory);
  } catch (const Ort::Exception& error) {
    throw Error(ErrorCode::backend,
                "onnxruntime cannot load " + artifact.path + " (" + first_line(error.what()) + ")",
                "an ONNX model that onnxruntime " + version() + " supports",
                "export it again, or use a newer onnxruntime");
  }
}

}  // namespace

BackendEntry onnxruntime_entry() { return {"onnxruntime", Format::onnx, &version, &absent, &open}; }

}  // namespace eightfold::detail
