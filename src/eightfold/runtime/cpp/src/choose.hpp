// Purpose: which of a bundle's artifacts an engine runs: by the same rule as Python's choose.py.
// (A bundle's latency table is not consulted: only Python can tell whether it was measured on a device like
// this one.)
#pragma once

#include <string>
#include <vector>

#include "session.hpp"

namespace eightfold::detail {

struct Choice {
  const BackendEntry* backend = nullptr;
  std::vector<Artifact> artifacts;  // one network in one precision for one target, by batch size, ascending
};

// Throws Error: `missing_backend` where nothing runs here, `usage` where nothing is what was asked for.
Choice choose(const Manifest& manifest, const std::vector<BackendEntry>& entries,
              const EngineOptions& options);

// Whether an artifact was made for this machine and this back end.
bool runs_here(const Artifact& artifact, const BackendEntry& backend);

}  // namespace eightfold::detail
