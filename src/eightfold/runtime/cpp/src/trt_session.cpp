// TensorRT 8.2 to 11: engines of a bundle on an NVIDIA GPU.
#include <NvInferPlugin.h>

#include <cstring>

#include "cuda_memory.hpp"
#include "eightfold/error.hpp"
#include "engine_fit.hpp"
#include "session.hpp"
#include "trt_common.hpp"

namespace eightfold::detail {
namespace {

std::string absent() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) return std::string("CUDA finds no GPU: ") + cudaGetErrorString(status);
  return count > 0 ? "" : "there is no GPU";
}

// The engine's inputs and outputs, by name where the API has names, by binding where it has not.
class Tensors {
 public:
  explicit Tensors(const nvinfer1::ICudaEngine& engine) {
#if EIGHTFOLD_TRT_NAMED_TENSORS
    for (int i = 0; i < engine.getNbIOTensors(); ++i) {
      const char* name = engine.getIOTensorName(i);
      const bool is_input = engine.getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
      add(spec_from(name, engine.getTensorDataType(name), engine.getTensorShape(name)), is_input, i);
    }
#else
    for (int i = 0; i < engine.getNbBindings(); ++i) {
      add(spec_from(engine.getBindingName(i), engine.getBindingDataType(i), engine.getBindingDimensions(i)),
          engine.bindingIsInput(i), i);
    }
#endif
  }

  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
  // Position of each input, then of each output, among all.
  std::vector<int> input_places;
  std::vector<int> output_places;

 private:
  void add(TensorSpec spec, bool is_input, int place) {
    (is_input ? inputs : outputs).push_back(std::move(spec));
    (is_input ? input_places : output_places).push_back(place);
  }
};

struct Buffer {
  DeviceBuffer device;
  PinnedBuffer host;
  std::size_t bytes;
};

// Pinned host memory, device memory, and after the first run a CUDA graph of copies and kernels.
class TrtSlot : public Slot {
 public:
  TrtSlot(nvinfer1::ICudaEngine& engine, const Tensors& tensors, int device, const TrtLogger& logger)
      : device_(device), logger_(logger) {
    check_cuda(cudaSetDevice(device_), "use the GPU");
    context_.reset(engine.createExecutionContext());
    if (!context_) {
      throw Error(ErrorCode::backend, "TensorRT cannot make an execution context (" + logger_.reason() + ")",
                  "", "free device memory");
    }
    stream_ = make_stream();
    bindings_.resize(tensors.inputs.size() + tensors.outputs.size());
    for (std::size_t i = 0; i < tensors.inputs.size(); ++i) {
      inputs_.push_back(bound(tensors.inputs[i], tensors.input_places[i]));
    }
    for (std::size_t i = 0; i < tensors.outputs.size(); ++i) {
      outputs_.push_back(bound(tensors.outputs[i], tensors.output_places[i]));
    }
    // TensorRT allows capture only after a first run, which may still allocate.
    enqueue();
    check_cuda(cudaStreamSynchronize(stream_.get()), "run the engine");
    graph_ = captured();
  }

  void* input(std::size_t index) override { return inputs_[index].host.get(); }
  const void* output(std::size_t index) const override { return outputs_[index].host.get(); }

  void run() override {
    check_cuda(cudaSetDevice(device_), "use the GPU");
    if (graph_) {
      check_cuda(cudaGraphLaunch(graph_.get(), stream_.get()), "launch the engine's graph");
    } else {
      enqueue();
    }
    check_cuda(cudaStreamSynchronize(stream_.get()), "run the engine");
  }

  // The graph knows pinned memory only.
  void run_on(span<const void* const> inputs, span<void* const> outputs) override {
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      std::memcpy(inputs_[i].host.get(), inputs[i], inputs_[i].bytes);
    }
    run();
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      std::memcpy(outputs[i], outputs_[i].host.get(), outputs_[i].bytes);
    }
  }

 private:
  Buffer bound(const TensorSpec& spec, int place) {
    Buffer buffer = {allocate_device(spec.bytes()), allocate_pinned(spec.bytes()), spec.bytes()};
    std::memset(buffer.host.get(), 0, buffer.bytes);
    bindings_[static_cast<std::size_t>(place)] = buffer.device.get();
#if EIGHTFOLD_TRT_NAMED_TENSORS
    if (!context_->setTensorAddress(spec.name.c_str(), buffer.device.get())) {
      throw Error(ErrorCode::backend,
                  "TensorRT refuses a buffer for '" + spec.name + "' (" + logger_.reason() + ")");
    }
#endif
    return buffer;
  }

  void enqueue() {
    for (const Buffer& each : inputs_) {
      check_cuda(cudaMemcpyAsync(each.device.get(), each.host.get(), each.bytes, cudaMemcpyHostToDevice,
                                 stream_.get()),
                 "copy an input");
    }
#if EIGHTFOLD_TRT_NAMED_TENSORS
    const bool queued = context_->enqueueV3(stream_.get());
#else
    const bool queued = context_->enqueueV2(bindings_.data(), stream_.get(), nullptr);
#endif
    if (!queued) throw Error(ErrorCode::backend, "TensorRT failed while running (" + logger_.reason() + ")");
    for (const Buffer& each : outputs_) {
      check_cuda(cudaMemcpyAsync(each.host.get(), each.device.get(), each.bytes, cudaMemcpyDeviceToHost,
                                 stream_.get()),
                 "copy an output");
    }
  }

  // None where the engine cannot be captured (loops, shapes that depend on data): then each run queues its
  // parts.
  GraphExec captured() {
    if (cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal) != cudaSuccess)
      return nullptr;
    bool complete = true;
    try {
      enqueue();
    } catch (const Error&) {
      complete = false;
    }
    cudaGraph_t raw = nullptr;
    complete = cudaStreamEndCapture(stream_.get(), &raw) == cudaSuccess && complete;
    const Graph graph(raw);
    if (complete && graph) return instantiate(graph.get());
    cudaGetLastError();  // a failed capture leaves its error behind
    return nullptr;
  }

  int device_;
  const TrtLogger& logger_;
  std::vector<void*> bindings_;
  std::vector<Buffer> inputs_;
  std::vector<Buffer> outputs_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  Stream stream_;
  GraphExec graph_;
};

class TrtSession : public Session {
 public:
  TrtSession(const Bundle& bundle, const Artifact& artifact, int device)
      : device_(device), logger_(nvinfer1::ILogger::Severity::kERROR) {
    const std::vector<std::uint8_t> plan = bundle.read(artifact.path);
    check_cuda(cudaSetDevice(device_), "use the GPU");
    initLibNvInferPlugins(&logger_, "");  // some graphs' layers are plugins, instance normalization for one
    runtime_.reset(nvinfer1::createInferRuntime(logger_));
    allow_host_code(artifact);
    if (runtime_) engine_.reset(runtime_->deserializeCudaEngine(plan.data(), plan.size()));
    if (!engine_) {
      throw Error(ErrorCode::backend,
                  "TensorRT " + trt_library_version() + " cannot load engine " + artifact.path + " (" +
                      logger_.reason() + ")",
                  "engines built by this very version for this GPU, or to run on others as well",
                  "build it here: " + rebuild_command(bundle, artifact));
    }
    tensors_ = std::make_unique<Tensors>(*engine_);
  }

  const std::vector<TensorSpec>& inputs() const override { return tensors_->inputs; }
  const std::vector<TensorSpec>& outputs() const override { return tensors_->outputs; }
  std::unique_ptr<Slot> new_slot() const override {
    const std::lock_guard<std::mutex> guard(lock_);
    return std::make_unique<TrtSlot>(*engine_, *tensors_, device_, logger_);
  }

 private:
  void allow_host_code(const Artifact& artifact) {
    if (!brings_host_code(artifact)) return;
    require_trusted(artifact);
#if EIGHTFOLD_TRT_COMPATIBILITY
    if (runtime_) runtime_->setEngineHostCodeAllowed(true);
#endif
  }

  int device_;
  TrtLogger logger_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::unique_ptr<Tensors> tensors_;
  mutable std::mutex lock_;  // contexts of one engine are made one after the other
};

std::unique_ptr<Session> open(const Bundle& bundle, const Artifact& artifact, const EngineOptions& options) {
  check_engine_fits(bundle, artifact, {trt_library_version(), compute_capability(options.device)});
  return std::make_unique<TrtSession>(bundle, artifact, options.device);
}

}  // namespace

BackendEntry tensorrt_entry() { return {"tensorrt", Format::engine, &trt_library_version, &absent, &open}; }

}  // namespace eightfold::detail
