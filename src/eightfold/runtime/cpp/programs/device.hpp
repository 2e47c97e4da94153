// Purpose: the machine a number was measured on, as JSON in the form of Python's Device and DeviceState. What
// cannot be read is left out.
#pragma once

#include <nlohmann/json_fwd.hpp>

namespace programs {

nlohmann::json describe_device();
nlohmann::json read_state();

}  // namespace programs
