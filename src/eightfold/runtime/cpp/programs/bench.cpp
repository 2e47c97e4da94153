#include "bench.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <utility>

#include "choose.hpp"
#include "device.hpp"
#include "eightfold/error.hpp"
#include "eightfold/version.hpp"
#include "statistics.hpp"

namespace programs {
namespace {

using eightfold::Artifact;
using eightfold::Engine;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr double kWarmUpSeconds = 0.5;
constexpr int kRounds = 10;
constexpr const char* kBaseline = "baseline";

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// One batch size: an engine that holds only that, and its inputs, which hold noise: zeros can be faster than
// pictures.
struct Candidate {
  Artifact artifact;
  Engine engine;
  std::vector<std::vector<std::uint8_t>> inputs;
  Rounds times_s;
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

// So that what is loaded beside an engine takes images of the same size; nothing where it takes none.
void set_size(eightfold::EngineOptions& options, const Engine& engine) {
  const eightfold::Layout layout = engine.manifest().preprocess.layout;
  const auto size = eightfold::size_of(engine.artifacts()[0], layout);
  if (!size) return;
  options.height = size->height;
  options.width = size->width;
}

Candidate candidate_of(const BenchOptions& options, const Engine& all, const Artifact& artifact) {
  eightfold::EngineOptions chosen = options.engine;
  chosen.backend = all.backend();
  chosen.variant = artifact.variant;
  chosen.precision = name_of(artifact.precision);
  chosen.batch = artifact.batch;
  set_size(chosen, all);
  Engine engine = Engine::load(options.path, chosen);
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

// One round of a candidate.
void measure(Candidate& candidate, double seconds) {
  candidate.run();  // not timed: it brings the candidate's own weights back into the caches
  std::vector<double> times_s;
  const auto start = Clock::now();
  while (times_s.empty() || seconds_since(start) < seconds) {
    const auto begin = Clock::now();
    candidate.run();
    times_s.push_back(seconds_since(begin));
  }
  candidate.times_s.push_back(std::move(times_s));
}

// What the candidates are compared with: the bundle's baseline, where it has one that runs here and nothing
// was said about the variant.
std::optional<Engine> baseline_for(const Engine& chosen, const BenchOptions& options) {
  const auto is_baseline = [](const Artifact& artifact) { return artifact.variant == kBaseline; };
  const std::vector<Artifact>& all = chosen.manifest().artifacts;
  if (options.engine.variant != "auto" || is_baseline(chosen.artifacts()[0]) ||
      std::none_of(all.begin(), all.end(), is_baseline))
    return std::nullopt;
  eightfold::EngineOptions wanted = options.engine;
  wanted.variant = kBaseline;
  wanted.precision = "auto";
  set_size(wanted, chosen);
  try {
    return Engine::load(options.path, wanted);
  } catch (const eightfold::Error&) {  // not at this size, not on this back end
    return std::nullopt;
  }
}

std::string row_name(const Engine& engine, const Artifact& artifact) {
  const eightfold::Manifest& manifest = engine.manifest();
  const auto size = eightfold::size_of(artifact, manifest.preprocess.layout);
  const bool one_of_several = size && eightfold::sizes_of(manifest).size() > 1;
  return artifact.variant + " " + name_of(artifact.precision) +
         (one_of_several ? " at " + eightfold::text_of(*size) : "");
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
  json row = {{"name", row_name(candidate.engine, artifact)},
              {"variant", artifact.variant},
              {"artifact", artifact.id},
              {"sha256", candidate.engine.manifest().files.at(artifact.path).sha256},
              {"backend", eightfold::detail::table_name(candidate.engine.backend(), options.engine.provider)},
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

// The candidates of one batch size, the baseline first where there is one; they take turns, so that whatever
// disturbs the machine disturbs them alike.
std::vector<json> rows_of(std::vector<Candidate>& candidates, bool compared, const BenchOptions& options) {
  for (Candidate& candidate : candidates) warm_up(candidate);
  const json before = read_state();
  for (int round = 0; round < kRounds; ++round) {
    for (Candidate& candidate : candidates) measure(candidate, options.seconds / kRounds);
  }
  const json after = read_state();
  std::vector<json> rows;
  rows.reserve(candidates.size());
  for (const Candidate& candidate : candidates) rows.push_back(row_of(candidate, options, before, after));
  if (compared) rows.back()["speedup"] = speedup(candidates.front().times_s, candidates.back().times_s);
  return rows;
}

}  // namespace

json bench(const BenchOptions& options) {
  const Engine chosen = Engine::load(options.path, options.engine);
  const std::optional<Engine> baseline = baseline_for(chosen, options);
  json rows = json::array();
  for (const Artifact& artifact : chosen.artifacts()) {
    std::vector<Candidate> candidates;
    if (baseline) {
      for (const Artifact& other : baseline->artifacts()) {
        if (other.batch == artifact.batch) candidates.push_back(candidate_of(options, *baseline, other));
      }
    }
    const bool compared = !candidates.empty();
    candidates.push_back(candidate_of(options, chosen, artifact));
    for (json& row : rows_of(candidates, compared, options)) rows.push_back(std::move(row));
  }
  json versions = {{"eightfold", EIGHTFOLD_VERSION}};
  for (const json& row : rows) versions[row.at("backend")] = row.at("backend_version");
  json table = {{"kind", "latency table"},
                {"schema", 1},
                {"device", describe_device()},
                {"versions", versions},
                {"measured_at", utc_now()},
                {"seconds_per_row", options.seconds},
                {"rows", rows}};
  if (baseline) table["baseline"] = row_name(*baseline, baseline->artifacts()[0]);
  return table;
}

std::string table_of(const json& table) {
  std::string text = "batch    p50 ms    p90 ms    p99 ms  images/s       speed-up [95%]  candidate\n";
  for (const json& row : table.at("rows")) {
    const json& timing = row.at("timing");
    const auto shown = [&](const char* key) -> std::string {
      if (timing.at(key).is_null()) return "-";  // too few runs for this percentile
      std::array<char, 40> number;
      std::snprintf(number.data(), number.size(), "%.3f", timing.at(key).get<double>());
      return number.data();
    };
    std::array<char, 40> ratio = {"-"};
    if (row.contains("speedup")) {
      const json& interval = row.at("speedup");
      std::snprintf(ratio.data(), ratio.size(), "%.2fx [%.2f, %.2f]", interval.at("value").get<double>(),
                    interval.at("low").get<double>(), interval.at("high").get<double>());
    }
    std::array<char, 200> line;
    const double per_second = row.at("batch").get<double>() * timing.at("runs").get<double>() /
                              timing.at("duration_s").get<double>();
    std::snprintf(line.data(), line.size(), "%5d %9s %9s %9s %9.0f %20s  %s on %s\n",
                  row.at("batch").get<int>(), shown("p50_ms").c_str(), shown("p90_ms").c_str(),
                  shown("p99_ms").c_str(), per_second, ratio.data(),
                  row.at("name").get<std::string>().c_str(), row.at("backend").get<std::string>().c_str());
    text += line.data();
  }
  return text;
}

}  // namespace programs
