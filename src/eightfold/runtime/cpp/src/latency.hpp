// Purpose: the few things of a bundle's latency table that choosing needs.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "eightfold/bundle.hpp"
#include "eightfold/machine.hpp"

namespace eightfold::detail {

struct LatencyRow {
  std::string artifact;  // id
  std::string backend;
  double ms_per_image = 0;
};

struct LatencyTable {
  Machine machine;
  std::vector<LatencyRow> rows;
};

// Throws Error (bundle), naming the first key at fault.
LatencyTable latency_from_json(const std::string& text, const std::string& source);

// The bundle's table, if it has one that was measured on a machine like this one.
std::optional<LatencyTable> table_for_here(const Bundle& bundle);

}  // namespace eightfold::detail
