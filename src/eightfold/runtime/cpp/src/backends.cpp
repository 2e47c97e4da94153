#include <cstring>

#include "session.hpp"

namespace eightfold {
namespace detail {

void Slot::run_on(span<const void* const> inputs, span<const TensorSpec> specs) {
  for (std::size_t i = 0; i < inputs.size(); ++i) std::memcpy(input(i), inputs[i], specs[i].bytes());
  run();
}

const std::vector<BackendEntry>& backend_entries() {
  static const std::vector<BackendEntry> entries = {
#ifdef EIGHTFOLD_WITH_TENSORRT
      tensorrt_entry(),
#endif
#ifdef EIGHTFOLD_WITH_ONNXRUNTIME
      onnxruntime_entry(),
#endif
  };
  return entries;
}

}  // namespace detail

std::vector<BackendInfo> backends() {
  std::vector<BackendInfo> result;
  for (const detail::BackendEntry& entry : detail::backend_entries()) {
    result.push_back({entry.name, entry.version(), entry.absent()});
  }
  return result;
}

}  // namespace eightfold
