#include "statistics.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>

namespace programs {
namespace {

using nlohmann::json;

constexpr double kConfidence = 0.95;
constexpr int kResamples = 1000;

// With linear interpolation between the two nearest samples.
double quantile(const std::vector<double>& sorted, double share) {
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<std::size_t>(place);
  const std::size_t high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (place - static_cast<double>(low)) * (sorted[high] - sorted[low]);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return quantile(values, 0.5);
}

// Null where there are too few samples for a bound at 95% confidence (Wilks, 1941).
json quantile_ms(const std::vector<double>& sorted, double share) {
  const double needed = std::ceil(std::log(1 - kConfidence) / std::log(share));
  if (static_cast<double>(sorted.size()) < needed) return nullptr;
  return 1e3 * quantile(sorted, share);
}

}  // namespace

json timing_of(const Rounds& times_s) {
  std::vector<double> sorted;
  for (const std::vector<double>& round : times_s) sorted.insert(sorted.end(), round.begin(), round.end());
  std::sort(sorted.begin(), sorted.end());
  const double total = std::accumulate(sorted.begin(), sorted.end(), 0.0);
  const double mean = total / static_cast<double>(sorted.size());
  double squares = 0;
  for (const double time : sorted) squares += (time - mean) * (time - mean);
  return {{"runs", sorted.size()},
          {"duration_s", total},
          {"mean_ms", 1e3 * mean},
          {"min_ms", 1e3 * sorted.front()},
          {"max_ms", 1e3 * sorted.back()},
          {"p50_ms", quantile_ms(sorted, 0.5)},
          {"p90_ms", quantile_ms(sorted, 0.9)},
          {"p95_ms", quantile_ms(sorted, 0.95)},
          {"p99_ms", quantile_ms(sorted, 0.99)},
          {"p999_ms", quantile_ms(sorted, 0.999)},
          {"variation", std::sqrt(squares / static_cast<double>(sorted.size())) / mean}};
}

// Pairs of rounds are resampled whole: what slows the machine for a while slows both (Efron & Tibshirani,
// 1993, chapter 13).
json speedup(const Rounds& baseline_s, const Rounds& candidate_s) {
  std::vector<double> ratios;
  for (std::size_t round = 0; round < std::min(baseline_s.size(), candidate_s.size()); ++round)
    ratios.push_back(median(baseline_s[round]) / median(candidate_s[round]));
  std::mt19937 random(0);
  std::uniform_int_distribution<std::size_t> pick(0, ratios.size() - 1);
  std::vector<double> medians;
  for (int resample = 0; resample < kResamples; ++resample) {
    std::vector<double> drawn(ratios.size());
    std::generate(drawn.begin(), drawn.end(), [&] { return ratios[pick(random)]; });
    medians.push_back(median(drawn));
  }
  std::sort(medians.begin(), medians.end());
  const double tail = (1 - kConfidence) / 2;
  return {{"value", median(ratios)},
          {"low", quantile(medians, tail)},
          {"high", quantile(medians, 1 - tail)},
          {"confidence", kConfidence}};
}

}  // namespace programs
