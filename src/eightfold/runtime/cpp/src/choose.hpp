// Purpose: which of a bundle's artifacts an engine runs: by the same rule as Python's choose.py.
// By the times in the bundle's latency table where it was measured on a machine like this one, else by rule.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "latency.hpp"
#include "session.hpp"

namespace eightfold::detail {

struct Choice {
  const BackendEntry* backend = nullptr;
  std::vector<Artifact>
      artifacts;  // one network in one precision and size for one target, by batch size, ascending
  std::optional<Size> size = {};  // of the images that they take
  std::string reason = {};        // why it was picked, in words
};

// Throws Error: `missing_backend` where nothing runs here, `usage` where nothing is what was asked for.
// `table` may be null: nothing was measured on this machine.
Choice choose(const Manifest& manifest, const std::vector<BackendEntry>& entries,
              const EngineOptions& options, const LatencyTable* table = nullptr);

// What was picked and why; its size is named where the bundle has several.
std::string described(const Choice& choice, const Manifest& manifest);

// Whether an artifact was made for this machine and this back end; the provider is that of onnxruntime.
bool runs_here(const Artifact& artifact, const BackendEntry& backend, const std::string& provider);

// What latency tables call a back end: "onnxruntime-cuda" where onnxruntime uses that provider.
inline std::string table_name(const std::string& backend, const std::string& provider) {
  return backend == "onnxruntime" && provider != "cpu" ? backend + "-" + provider : backend;
}

}  // namespace eightfold::detail
