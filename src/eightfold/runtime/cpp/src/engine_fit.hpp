// Purpose: whether an engine of a bundle was built for this machine. Knows nothing of TensorRT but its
// versions, so that it is tested without.
#pragma once

#include <string>

#include "eightfold/bundle.hpp"

namespace eightfold::detail {

// What an engine was built for, or what there is here.
struct EngineHost {
  std::string tensorrt;            // "10.3.0"
  std::string compute_capability;  // "8.7"
};

// Whether a version or compute capability is among those that a requirement names: alternatives parted by
// commas, each of conditions parted by blanks that all have to hold: a plain version ("10.3.0": the numbers
// that both sides have must agree), ">=8.0" or "<11". Python reads the same (engine_fit.py).
bool meets(const std::string& seen, const std::string& requirement);

// Whether an engine brings machine code of the host along: one that runs on later versions too holds
// TensorRT's lean runtime.
bool brings_host_code(const Artifact& engine);

// Throws Error (backend) unless EIGHTFOLD_TRUST_ENGINE_CODE is 1: nothing in a bundle runs as code of the
// host without the consent of whoever set this machine up.
void require_trusted(const Artifact& engine);

// The command that builds an engine anew on this board, from the graph in the bundle that it was made of
// where there is one.
std::string rebuild_command(const Bundle& bundle, const Artifact& artifact);

// Throws Error (backend) with that command where the engine was built for something else: TensorRT would say
// so less clearly.
void check_engine_fits(const Bundle& bundle, const Artifact& artifact, const EngineHost& here);

// The file for one version and GPU beside `path`: caches of different ones do not mix. Python's builder takes
// the same.
std::string timing_cache_path(const std::string& path, const std::string& version, const std::string& device);

}  // namespace eightfold::detail
