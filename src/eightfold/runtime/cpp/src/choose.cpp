#include "choose.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <iterator>
#include <limits>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "eightfold/error.hpp"

namespace eightfold::detail {
namespace {

#if defined(__x86_64__)
constexpr const char* kCpuTarget = "cpu-x86";
#elif defined(__aarch64__)
constexpr const char* kCpuTarget = "cpu-arm";
#else
constexpr const char* kCpuTarget = "";
#endif

std::vector<Choice> all_choices(const Manifest& manifest, const std::vector<BackendEntry>& entries,
                                const std::string& provider) {
  using Key = std::tuple<std::string, Precision, std::string, std::optional<Size>>;
  std::vector<Choice> choices;
  for (const BackendEntry& backend : entries) {
    if (!backend.absent().empty()) continue;
    std::vector<Key> keys;  // in the manifest's order
    const std::size_t first = choices.size();
    for (const Artifact& artifact : manifest.artifacts) {
      if (!runs_here(artifact, backend, provider)) continue;
      const std::optional<Size> size = size_of(artifact, manifest.preprocess.layout);
      const Key key{artifact.variant, artifact.precision, artifact.target, size};
      const auto known = std::find(keys.begin(), keys.end(), key);
      const auto place = first + static_cast<std::size_t>(known - keys.begin());
      if (known == keys.end()) {
        keys.push_back(key);
        choices.push_back({&backend, {}, size});
      }
      choices[place].artifacts.push_back(artifact);
    }
  }
  for (Choice& choice : choices) {
    std::stable_sort(choice.artifacts.begin(), choice.artifacts.end(),
                     [](const Artifact& a, const Artifact& b) { return a.batch < b.batch; });
  }
  return choices;
}

std::string batches_of(const Choice& choice, const char* separator) {
  std::string batches;
  for (const Artifact& artifact : choice.artifacts) {
    batches += (batches.empty() ? "" : separator) + std::to_string(artifact.batch);
  }
  return batches;
}

std::string at_size(const std::optional<Size>& size) { return size ? " at " + text_of(*size) : ""; }

// Without its batch sizes.
std::string network_of(const Choice& choice, bool with_size) {
  const Artifact& first = choice.artifacts[0];
  return first.variant + " " + name_of(first.precision) + " on " + choice.backend->name +
         (with_size ? at_size(choice.size) : "");
}

bool has_several_sizes(const Manifest& manifest) { return sizes_of(manifest).size() > 1; }

// None where every size will do.
std::optional<Size> wanted_size(const EngineOptions& options) {
  const Size size = {options.height, options.width};
  return size == Size{} ? std::nullopt : std::optional<Size>(size);
}

bool has_batch(const Choice& choice, int batch) {
  return std::any_of(choice.artifacts.begin(), choice.artifacts.end(),
                     [&](const Artifact& artifact) { return artifact.batch == batch; });
}

bool fits(const Choice& choice, const EngineOptions& options) {
  const auto is = [](const std::string& wish, const std::string& value) {
    return wish == "auto" || wish == value;
  };
  const std::optional<Size> size = wanted_size(options);
  return is(options.backend, choice.backend->name) &&
         is(options.precision, name_of(choice.artifacts[0].precision)) &&
         is(options.variant, choice.artifacts[0].variant) && (!size || choice.size == size) &&
         (options.batch == 0 || has_batch(choice, options.batch));
}

// What another size costs in quality no table tells: it is run only when asked for, or where there is no
// other.
std::vector<Choice> preferred_size(std::vector<Choice> choices, Size usual) {
  const auto is_other = [&](const Choice& choice) { return choice.size != usual; };
  if (std::all_of(choices.begin(), choices.end(), is_other)) return choices;
  choices.erase(std::remove_if(choices.begin(), choices.end(), is_other), choices.end());
  return choices;
}

// A bundle carries its baseline for comparison; it is run only when asked for or alone.
std::vector<Choice> preferred_variant(std::vector<Choice> choices, const EngineOptions& options) {
  const auto is_baseline = [](const Choice& choice) { return choice.artifacts[0].variant == "baseline"; };
  if (options.variant != "auto" || std::all_of(choices.begin(), choices.end(), is_baseline)) return choices;
  choices.erase(std::remove_if(choices.begin(), choices.end(), is_baseline), choices.end());
  return choices;
}

// At the smallest of its batch sizes that was measured; infinity where none was.
double ms_per_image(const Choice& choice, const LatencyTable& table, const std::string& provider) {
  const std::string backend = table_name(choice.backend->name, provider);
  for (const Artifact& artifact : choice.artifacts) {
    for (const LatencyRow& row : table.rows) {
      if (row.artifact == artifact.id && row.backend == backend) return row.ms_per_image;
    }
  }
  return std::numeric_limits<double>::infinity();
}

std::optional<Choice> by_table(const std::vector<Choice>& choices, const LatencyTable& table,
                               const std::string& provider) {
  const Choice* best = nullptr;
  double least = std::numeric_limits<double>::infinity();
  for (const Choice& choice : choices) {
    const double time = ms_per_image(choice, table, provider);
    if (!(time < least)) continue;
    least = time;
    best = &choice;
  }
  if (best == nullptr) return std::nullopt;
  std::array<char, 96> reason;
  std::snprintf(reason.data(), reason.size(),
                "the fastest in the bundle's table for this device, %.2f ms per image", least);
  return Choice{best->backend, best->artifacts, best->size, reason.data()};
}

// What runs on a GPU first, then narrow numbers, then the order of the back ends.
std::pair<bool, int> rank(const Choice& choice, const std::string& provider) {
  const Artifact& artifact = choice.artifacts[0];
  constexpr Precision order[] = {Precision::int8, Precision::fp16, Precision::bf16, Precision::fp32};
  const auto* const place = std::find(std::begin(order), std::end(order), artifact.precision);
  const bool on_gpu = artifact.format == Format::engine || provider != "cpu";
  return {!on_gpu, static_cast<int>(place - std::begin(order))};
}

Choice by_rule(const std::vector<Choice>& choices, const std::string& provider) {
  const auto best = std::min_element(choices.begin(), choices.end(), [&](const Choice& a, const Choice& b) {
    return rank(a, provider) < rank(b, provider);
  });
  std::string others;
  for (const Choice& choice : choices) {
    if (&choice == &*best) continue;
    others += (others.empty() ? "" : ", ") + std::string(name_of(choice.artifacts[0].precision)) + " on " +
              table_name(choice.backend->name, provider) +
              (choice.size == best->size ? "" : at_size(choice.size));
  }
  Choice chosen = *best;
  chosen.reason = others.empty() ? "the only one that fits"
                                 : "by rule before " + others + "; none was measured on this device";
  return chosen;
}

[[noreturn]] void nothing_fits(const Manifest& manifest, const std::vector<Choice>& runnable,
                               const EngineOptions& options) {
  std::set<std::string> there;
  if (runnable.empty()) {
    for (const Artifact& artifact : manifest.artifacts) there.insert(artifact.id + " for " + artifact.target);
  }
  const std::optional<Size> size = wanted_size(options);
  for (const Choice& choice : runnable) {
    there.insert(network_of(choice, size || has_several_sizes(manifest)) + ", batch " +
                 batches_of(choice, "/"));
  }
  std::string list;
  for (const std::string& each : there) list += (list.empty() ? "" : "; ") + each;
  if (runnable.empty()) {
    throw Error(ErrorCode::missing_backend, "nothing in this bundle runs here; it holds " + list,
                "an artifact for this machine whose back end is part of this build",
                "export for this machine, or build the runtime with its back end");
  }
  const std::string batch = options.batch == 0 ? "" : ", batch " + std::to_string(options.batch);
  throw Error(ErrorCode::usage,
              "nothing in this bundle is " + options.variant + " " + options.precision + " on " +
                  options.backend + at_size(size) + batch,
              list);
}

void check_backend(const std::vector<BackendEntry>& entries, const std::string& wish) {
  std::string known;
  for (const BackendEntry& entry : entries) {
    known += (known.empty() ? "" : ", ") + std::string(entry.name);
    if (wish != entry.name) continue;
    const std::string reason = entry.absent();
    if (!reason.empty()) throw Error(ErrorCode::missing_backend, wish + " cannot be used (" + reason + ")");
    return;
  }
  if (wish == "auto") return;
  throw Error(ErrorCode::missing_backend, "this build has no back end '" + wish + "'",
              known.empty() ? "none: it was built without any" : known, "build the runtime with it");
}

}  // namespace

std::string described(const Choice& choice, const Manifest& manifest) {
  return network_of(choice, has_several_sizes(manifest)) + " (batch " + batches_of(choice, ", ") +
         "): " + choice.reason;
}

// A quantized graph made for another target may well load, but slowly or with other results: it does not
// count.
bool runs_here(const Artifact& artifact, const BackendEntry& backend, const std::string& provider) {
  if (artifact.format != backend.format) return false;
  const std::string target = artifact.target.substr(0, artifact.target.find(':'));
  if (artifact.format == Format::engine) return target == "tensorrt" || target == "tensorrt-dla";
  if (target == "any") return true;
  if (provider == "tensorrt") return target == "tensorrt";
  return provider == "cpu" && target == kCpuTarget;
}

Choice choose(const Manifest& manifest, const std::vector<BackendEntry>& entries,
              const EngineOptions& options, const LatencyTable* table) {
  check_backend(entries, options.backend);
  const std::vector<Choice> runnable = all_choices(manifest, entries, options.provider);
  std::vector<Choice> fitting;
  std::copy_if(runnable.begin(), runnable.end(), std::back_inserter(fitting),
               [&](const Choice& choice) { return fits(choice, options); });
  if (fitting.empty()) nothing_fits(manifest, runnable, options);
  fitting = preferred_size(std::move(fitting), {manifest.preprocess.height, manifest.preprocess.width});
  fitting = preferred_variant(std::move(fitting), options);
  std::optional<Choice> measured;
  if (table != nullptr) measured = by_table(fitting, *table, options.provider);
  Choice result = measured ? std::move(*measured) : by_rule(fitting, options.provider);
  if (options.batch != 0) {
    const auto other = [&](const Artifact& artifact) { return artifact.batch != options.batch; };
    result.artifacts.erase(std::remove_if(result.artifacts.begin(), result.artifacts.end(), other),
                           result.artifacts.end());
  }
  return result;
}

}  // namespace eightfold::detail
