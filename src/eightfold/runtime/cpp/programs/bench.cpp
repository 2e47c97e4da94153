#include "bench.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>

#include "device.hpp"
#include "eightfold/version.hpp"

namespace programs {
namespace {

using eightfold::Artifact;
using eightfold::Engine;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr double kWarmUpSeconds = 0.5;
constexpr int kRounds = 10;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// One batch size: an engine that holds only that, and its inputs, which hold noise: zeros can be faster than
// pictures.
struct Candidate {
  Artifact artifact;
  Engine engine;
  std::vector<std::vector<std::uint8_t>> inputs;
  std::vector<double> times_s;
  int warm_up_runs = 0;
  double warm_up_s = 0;

  void run() const {
    std::vector<eightfold::TensorView> views;
    for (const auto& input : inputs) views.push_back({input.data(), input.size()});
    engine.run_tensors(views, static_cast<std::size_t>(artifact.batch));
  }
};

std::vector<std::uint8_t> noise(const eightfold::TensorSpec& spec) {
  std::mt19937 random(0);
  std::vector<std::uint8_t> bytes(spec.bytes());
  if (spec.type == eightfold::DataType::float32) {
    std::normal_distribution<float> normal;
    auto* values = reinterpret_cast<float*>(bytes.data());
    std::generate(values, values + spec.elements(), [&] { return normal(random); });
  } else if (spec.type == eightfold::DataType::uint8) {
    std::generate(bytes.begin(), bytes.end(), [&] { return static_cast<std::uint8_t>(random() % 256); });
  }
  return bytes;
}

Candidate candidate_of(const BenchOptions& options, int batch) {
  eightfold::EngineOptions chosen = options.engine;
  chosen.batch = batch;
  Engine engine = Engine::load(options.path, chosen);
  Artifact artifact = engine.artifacts()[0];
  Candidate candidate = {artifact, std::move(engine), {}, {}, 0, 0};
  for (const eightfold::TensorSpec& spec : artifact.inputs) candidate.inputs.push_back(noise(spec));
  return candidate;
}

void warm_up(Candidate& candidate) {
  const auto start = Clock::now();
  while (candidate.warm_up_runs < 3 || seconds_since(start) < kWarmUpSeconds) {
    candidate.run();
    ++candidate.warm_up_runs;
  }
  candidate.warm_up_s = seconds_since(start);
}

void measure(Candidate& candidate, double seconds) {
  candidate.run();  // not timed: it brings the candidate's own weights back into the caches
  const auto start = Clock::now();
  while (seconds_since(start) < seconds) {
    const auto begin = Clock::now();
    candidate.run();
    candidate.times_s.push_back(seconds_since(begin));
  }
}

// None where there are too few samples for a bound at 95% confidence (Wilks, 1941).
json quantile_ms(const std::vector<double>& sorted, double quantile) {
  const double needed = std::ceil(std::log(0.05) / std::log(quantile));
  if (static_cast<double>(sorted.size()) < needed) return nullptr;
  const double place = quantile * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<std::size_t>(place);
  const std::size_t high = std::min(low + 1, sorted.size() - 1);
  return 1e3 * (sorted[low] + (place - static_cast<double>(low)) * (sorted[high] - sorted[low]));
}

json timing_of(std::vector<double> times_s) {
  std::sort(times_s.begin(), times_s.end());
  const double total = std::accumulate(times_s.begin(), times_s.end(), 0.0);
  const double mean = total / static_cast<double>(times_s.size());
  double squares = 0;
  for (const double time : times_s) squares += (time - mean) * (time - mean);
  return {{"runs", times_s.size()},
          {"duration_s", total},
          {"mean_ms", 1e3 * mean},
          {"min_ms", 1e3 * times_s.front()},
          {"max_ms", 1e3 * times_s.back()},
          {"p50_ms", quantile_ms(times_s, 0.5)},
          {"p90_ms", quantile_ms(times_s, 0.9)},
          {"p95_ms", quantile_ms(times_s, 0.95)},
          {"p99_ms", quantile_ms(times_s, 0.99)},
          {"p999_ms", quantile_ms(times_s, 0.999)},
          {"variation", std::sqrt(squares / static_cast<double>(times_s.size())) / mean}};
}

// As Python's back ends are called.
std::string table_name(const std::string& backend, const std::string& provider) {
  return backend == "onnxruntime" && provider != "cpu" ? backend + "-" + provider : backend;
}

std::string version_of(const std::string& backend) {
  for (const eightfold::BackendInfo& info : eightfold::backends()) {
    if (info.name == backend) return info.version;
  }
  return "";
}

json row_of(const Candidate& candidate, const BenchOptions& options, const json& before, const json& after) {
  const Artifact& artifact = candidate.artifact;
  json shapes = json::object();
  for (const eightfold::TensorSpec& spec : artifact.inputs) shapes[spec.name] = spec.shape;
  json row = {{"name", artifact.variant + " " + name_of(artifact.precision)},
              {"variant", artifact.variant},
              {"artifact", artifact.id},
              {"sha256", candidate.engine.manifest().files.at(artifact.path).sha256},
              {"backend", table_name(candidate.engine.backend(), options.engine.provider)},
              {"backend_version", version_of(candidate.engine.backend())},
              {"provider", candidate.engine.backend() == "onnxruntime" ? options.engine.provider : ""},
              {"precision", name_of(artifact.precision)},
              {"batch", artifact.batch},
              {"input_shapes", shapes},
              {"scope", "model+copies"},
              {"warmup_runs", candidate.warm_up_runs},
              {"warmup_s", candidate.warm_up_s},
              {"warmup_stable", true},
              {"rounds", kRounds},
              {"timing", timing_of(candidate.times_s)},
              {"before", before},
              {"after", after},
              {"notes", {"measured by eightfold-run"}}};
  if (options.engine.threads > 0) row["threads"] = options.engine.threads;
  return row;
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts = {};
  gmtime_r(&now, &parts);
  std::array<char, 32> text;
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S+00:00", &parts);
  return text.data();
}

}  // namespace

json bench(const BenchOptions& options) {
  std::vector<Candidate> candidates;
  const Engine all = Engine::load(options.path, options.engine);
  for (const Artifact& artifact : all.artifacts())
    candidates.push_back(candidate_of(options, artifact.batch));
  for (Candidate& candidate : candidates) warm_up(candidate);
  const json before = read_state();
  for (int round = 0; round < kRounds; ++round) {
    for (Candidate& candidate : candidates) measure(candidate, options.seconds / kRounds);
  }
  const json after = read_state();
  json rows = json::array();
  for (const Candidate& candidate : candidates) rows.push_back(row_of(candidate, options, before, after));
  return {{"kind", "latency table"},
          {"schema", 1},
          {"device", describe_device()},
          {"versions", {{"eightfold", EIGHTFOLD_VERSION}, {all.backend(), version_of(all.backend())}}},
          {"measured_at", utc_now()},
          {"seconds_per_row", options.seconds},
          {"rows", rows}};
}

std::string table_of(const json& table) {
  std::string text = "batch    p50 ms    p90 ms    p99 ms  images/s  candidate\n";
  for (const json& row : table.at("rows")) {
    const json& timing = row.at("timing");
    const auto shown = [&](const char* key) {
      return timing.at(key).is_null() ? NAN : timing.at(key).get<double>();
    };
    std::array<char, 160> line;
    const double per_second = row.at("batch").get<double>() * timing.at("runs").get<double>() /
                              timing.at("duration_s").get<double>();
    std::snprintf(line.data(), line.size(), "%5d %9.3f %9.3f %9.3f %9.0f  %s on %s\n",
                  row.at("batch").get<int>(), shown("p50_ms"), shown("p90_ms"), shown("p99_ms"), per_second,
                  row.at("name").get<std::string>().c_str(), row.at("backend").get<std::string>().c_str());
    text += line.data();
  }
  return text;
}

}  // namespace programs
