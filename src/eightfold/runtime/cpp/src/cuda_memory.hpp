// Purpose: move-only handles of what CUDA hands out: each releases in its destructor.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>

#include "trt_common.hpp"

namespace eightfold::detail {

struct DeviceFree {
  void operator()(void* pointer) const { cudaFree(pointer); }
};
using DeviceBuffer = std::unique_ptr<void, DeviceFree>;

struct PinnedFree {
  void operator()(void* pointer) const { cudaFreeHost(pointer); }
};
using PinnedBuffer = std::unique_ptr<void, PinnedFree>;

struct StreamDestroy {
  void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
};
using Stream = std::unique_ptr<CUstream_st, StreamDestroy>;

struct GraphDestroy {
  void operator()(cudaGraph_t graph) const { cudaGraphDestroy(graph); }
};
using Graph = std::unique_ptr<CUgraph_st, GraphDestroy>;

struct GraphExecDestroy {
  void operator()(cudaGraphExec_t graph) const { cudaGraphExecDestroy(graph); }
};
using GraphExec = std::unique_ptr<CUgraphExec_st, GraphExecDestroy>;

inline DeviceBuffer allocate_device(std::size_t bytes) {
  void* pointer = nullptr;
  check_cuda(cudaMalloc(&pointer, bytes), "allocate device memory");
  return DeviceBuffer(pointer);
}

// Host memory that the GPU reads and writes directly.
inline PinnedBuffer allocate_pinned(std::size_t bytes) {
  void* pointer = nullptr;
  check_cuda(cudaMallocHost(&pointer, bytes), "allocate pinned memory");
  return PinnedBuffer(pointer);
}

inline Stream make_stream() {
  cudaStream_t stream = nullptr;
  check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "make a stream");
  return Stream(stream);
}

inline GraphExec instantiate(cudaGraph_t graph) {
  cudaGraphExec_t executable = nullptr;
#if CUDART_VERSION >= 12000
  const cudaError_t status = cudaGraphInstantiate(&executable, graph, 0);
#else
  const cudaError_t status = cudaGraphInstantiate(&executable, graph, nullptr, nullptr, 0);
#endif
  return GraphExec(status == cudaSuccess ? executable : nullptr);
}

}  // namespace eightfold::detail
