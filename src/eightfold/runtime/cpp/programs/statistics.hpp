// Purpose: what measured times are reduced to, by the rules of Python's runtime/timing.py.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <vector>

namespace programs {

// Seconds per call, round by round.
using Rounds = std::vector<std::vector<double>>;

// The distribution of all calls, in milliseconds. A percentile is null where there are too few samples for
// it.
nlohmann::json timing_of(const Rounds& times_s);
// How many times as fast the candidate is as the baseline, with a bootstrap interval over rounds.
nlohmann::json speedup(const Rounds& baseline_s, const Rounds& candidate_s);

}  // namespace programs
