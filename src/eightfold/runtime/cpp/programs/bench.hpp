// Purpose: time a bundle's models and write the times as Python's LatencyTable reads them.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "eightfold/engine.hpp"

namespace programs {

struct BenchOptions {
  std::string path;
  eightfold::EngineOptions engine;
  double seconds = 4;  // timed, per row
};

// Every batch size of what the options pick, beside the baseline of the bundle, in turns; the model alone, on
// buffers that are used again.
nlohmann::json bench(const BenchOptions& options);
// A few lines for a terminal.
std::string table_of(const nlohmann::json& table);

}  // namespace programs
