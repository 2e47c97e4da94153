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

// The command that builds an engine anew on this board, from the graph in the bundle that it was made of
// where there is one.
std::string rebuild_command(const Bundle& bundle, const Artifact& artifact);

// Throws Error (backend) with that command where the engine was built for something else: TensorRT would say
// so less clearly.
void check_engine_fits(const Bundle& bundle, const Artifact& artifact, const EngineHost& here);

}  // namespace eightfold::detail
