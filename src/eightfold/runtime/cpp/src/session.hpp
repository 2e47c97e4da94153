// Purpose: what each back end is to the rest of the library. A back end's headers are included in its own
// file only.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "eightfold/bundle.hpp"
#include "eightfold/engine.hpp"

namespace eightfold::detail {

// Buffers for one request in flight; belongs to one thread at a time.
class Slot {
 public:
  Slot() = default;
  Slot(const Slot&) = delete;
  Slot& operator=(const Slot&) = delete;
  virtual ~Slot() = default;

  // Host memory of the size that the session's specifications state. Outputs are valid until the next run.
  virtual void* input(std::size_t index) = 0;
  virtual const void* output(std::size_t index) const = 0;
  // Inputs -> outputs. Throws Error (backend).
  virtual void run() = 0;
  // The same in the caller's memory, of the same sizes. Back ends that can bind it do without copies.
  virtual void run_on(span<const void* const> inputs, span<void* const> outputs) = 0;
};

// A loaded model of static shapes. Safe to share between threads, each with its own slot.
class Session {
 public:
  Session() = default;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  virtual ~Session() = default;

  virtual const std::vector<TensorSpec>& inputs() const = 0;
  virtual const std::vector<TensorSpec>& outputs() const = 0;
  virtual std::unique_ptr<Slot> new_slot() const = 0;
};

struct BackendEntry {
  const char* name;
  Format format;
  std::string (*version)();
  // Empty where it can be used on this machine, else why not.
  std::string (*absent)();
  std::unique_ptr<Session> (*open)(const Bundle& bundle, const Artifact& artifact,
                                   const EngineOptions& options);
};

// The back ends of this build, in the order of preference.
const std::vector<BackendEntry>& backend_entries();

#ifdef EIGHTFOLD_WITH_ONNXRUNTIME
BackendEntry onnxruntime_entry();
#endif
#ifdef EIGHTFOLD_WITH_TENSORRT
BackendEntry tensorrt_entry();
#endif

}  // namespace eightfold::detail
