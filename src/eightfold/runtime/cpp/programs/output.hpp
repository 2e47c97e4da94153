// Purpose: predictions as text for a terminal and as JSON, in the form of Python's results.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "eightfold/engine.hpp"

namespace programs {

nlohmann::json json_of(const eightfold::Engine& engine, const eightfold::Prediction& prediction);
std::string line_of(const eightfold::Engine& engine, const eightfold::Prediction& prediction);

}  // namespace programs
