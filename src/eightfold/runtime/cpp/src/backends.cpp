#include "session.hpp"

namespace eightfold {
namespace detail {

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
