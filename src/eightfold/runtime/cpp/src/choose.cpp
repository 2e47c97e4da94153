#include "choose.hpp"

#include <algorithm>
#include <set>
#include <tuple>

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

std::vector<Choice> all_choices(const Manifest& manifest, const std::vector<BackendEntry>& entries) {
  using Key = std::tuple<std::string, Precision, std::string>;
  std::vector<Choice> choices;
  for (const BackendEntry& backend : entries) {
    if (!backend.absent().empty()) continue;
    std::vector<Key> keys;  // in the manifest's order
    const std::size_t first = choices.size();
    for (const Artifact& artifact : manifest.artifacts) {
      if (!runs_here(artifact, backend)) continue;
      const Key key{artifact.variant, artifact.precision, artifact.target};
      const auto known = std::find(keys.begin(), keys.end(), key);
      const auto place = first + static_cast<std::size_t>(known - keys.begin());
      if (known == keys.end()) {
        keys.push_back(key);
        choices.push_back({&backend, {}});
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

bool has_batch(const Choice& choice, int batch) {
  return std::any_of(choice.artifacts.begin(), choice.artifacts.end(),
                     [&](const Artifact& artifact) { return artifact.batch == batch; });
}

bool fits(const Choice& choice, const EngineOptions& options) {
  const auto is = [](const std::string& wish, const std::string& value) {
    return wish == "auto" || wish == value;
  };
  return is(options.backend, choice.backend->name) &&
         is(options.precision, name_of(choice.artifacts[0].precision)) &&
         is(options.variant, choice.artifacts[0].variant) &&
         (options.batch == 0 || has_batch(choice, options.batch));
}

// Narrow numbers first, engines before graphs; a baseline is there for comparison and runs only when asked
// for or alone.
std::tuple<bool, bool, int> rank(const Choice& choice, const EngineOptions& options) {
  const Artifact& artifact = choice.artifacts[0];
  constexpr Precision order[] = {Precision::int8, Precision::fp16, Precision::bf16, Precision::fp32};
  const auto* const place = std::find(std::begin(order), std::end(order), artifact.precision);
  return {options.variant == "auto" && artifact.variant == "baseline", artifact.format != Format::engine,
          static_cast<int>(place - std::begin(order))};
}

std::string described(const Choice& choice) {
  std::string batches;
  for (const Artifact& artifact : choice.artifacts) {
    batches += (batches.empty() ? "" : "/") + std::to_string(artifact.batch);
  }
  const Artifact& first = choice.artifacts[0];
  return first.variant + " " + name_of(first.precision) + " on " + choice.backend->name + ", batch " +
         batches;
}

[[noreturn]] void nothing_fits(const Manifest& manifest, const std::vector<Choice>& runnable,
                               const EngineOptions& options) {
  std::set<std::string> there;
  if (runnable.empty()) {
    for (const Artifact& artifact : manifest.artifacts) there.insert(artifact.id + " for " + artifact.target);
  }
  for (const Choice& choice : runnable) there.insert(described(choice));
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
                  options.backend + batch,
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

bool runs_here(const Artifact& artifact, const BackendEntry& backend) {
  if (artifact.format != backend.format) return false;
  const std::string target = artifact.target.substr(0, artifact.target.find(':'));
  if (artifact.format == Format::engine) return target.compare(0, 8, "tensorrt") == 0;
  return target == "any" || target == kCpuTarget;
}

Choice choose(const Manifest& manifest, const std::vector<BackendEntry>& entries,
              const EngineOptions& options) {
  check_backend(entries, options.backend);
  const std::vector<Choice> runnable = all_choices(manifest, entries);
  const Choice* best = nullptr;
  for (const Choice& choice : runnable) {
    if (!fits(choice, options)) continue;
    if (best == nullptr || rank(choice, options) < rank(*best, options)) best = &choice;
  }
  if (best == nullptr) nothing_fits(manifest, runnable, options);
  Choice result = *best;
  if (options.batch != 0) {
    const auto other = [&](const Artifact& artifact) { return artifact.batch != options.batch; };
    result.artifacts.erase(std::remove_if(result.artifacts.begin(), result.artifacts.end(), other),
                           result.artifacts.end());
  }
  return result;
}

}  // namespace eightfold::detail
