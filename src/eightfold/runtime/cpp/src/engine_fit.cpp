#include "engine_fit.hpp"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <sstream>
#include <vector>

#include "eightfold/error.hpp"

namespace eightfold::detail {
namespace {

// {10, 0, 0} of "10.0.0b6".
std::vector<long> numbers_of(const std::string& version) {
  constexpr std::size_t most_digits = 9;
  const auto is_digit = [](char letter) { return letter >= '0' && letter <= '9'; };
  std::vector<long> numbers;
  for (std::size_t place = 0; place < version.size(); ++place) {
    const std::size_t first = place;
    while (place < version.size() && is_digit(version[place]) && place - first < most_digits) ++place;
    if (place == first) break;
    numbers.push_back(std::stol(version.substr(first, place - first)));
    if (place == version.size() || version[place] != '.') break;
  }
  return numbers;
}

bool holds(const std::string& seen, const std::string& condition) {
  const std::size_t length = condition.compare(0, 2, ">=") == 0  ? 2
                             : condition.compare(0, 1, "<") == 0 ? 1
                                                                 : 0;
  std::vector<long> wanted = numbers_of(condition.substr(length));
  std::vector<long> here = numbers_of(seen);
  if (wanted.empty() || here.empty()) return false;
  // Compared as far as both go: this API tells three of a version's four numbers.
  const std::size_t common = std::min(wanted.size(), here.size());
  wanted.resize(common);
  here.resize(common);
  if (length == 0) return here == wanted;
  return length == 2 ? here >= wanted : here < wanted;
}

bool all_hold(const std::string& seen, const std::string& alternative) {
  std::istringstream words(alternative);
  bool any = false;
  for (std::string condition; words >> condition; any = true) {
    if (!holds(seen, condition)) return false;
  }
  return any;
}

// An INT8 engine is built from the graph with Q/DQ for TensorRT, any other from the plain one.
bool is_source_of(const Artifact& graph, const Artifact& engine, Layout layout) {
  if (graph.format != Format::onnx || graph.variant != engine.variant || graph.batch != engine.batch ||
      size_of(graph, layout) != size_of(engine, layout)) {
    return false;
  }
  return engine.precision == Precision::int8
             ? graph.precision == Precision::int8 && graph.target.find("tensorrt") == 0
             : graph.target == "any";
}

}  // namespace

bool meets(const std::string& seen, const std::string& requirement) {
  std::istringstream alternatives(requirement);
  for (std::string each; std::getline(alternatives, each, ',');) {
    if (all_hold(seen, each)) return true;
  }
  return false;
}

bool brings_host_code(const Artifact& engine) {
  const auto version = engine.requirements.find("tensorrt");
  return version != engine.requirements.end() && version->second.compare(0, 2, ">=") == 0;
}

void require_trusted(const Artifact& engine) {
  const char* trusted = std::getenv("EIGHTFOLD_TRUST_ENGINE_CODE");
  if (trusted != nullptr && std::string(trusted) == "1") return;
  throw Error(ErrorCode::backend,
              "engine " + engine.path +
                  " is version-compatible: it brings machine code along that runs in this process",
              "engines without such code, or of a maker you trust",
              "set EIGHTFOLD_TRUST_ENGINE_CODE=1, or build it without --version-compatible");
}

std::string rebuild_command(const Bundle& bundle, const Artifact& artifact) {
  const std::vector<Artifact>& all = bundle.manifest().artifacts;
  const Layout layout = bundle.manifest().preprocess.layout;
  const auto graph = std::find_if(all.begin(), all.end(),
                                  [&](const Artifact& each) { return is_source_of(each, artifact, layout); });
  const std::string source = graph == all.end() ? "MODEL.onnx" : bundle.path() + "/" + graph->path;
  const std::string engine = artifact.path.substr(artifact.path.rfind('/') + 1);
  return "eightfold-build " + source + " -o " + engine + " --precision " + name_of(artifact.precision);
}

void check_engine_fits(const Bundle& bundle, const Artifact& artifact, const EngineHost& here) {
  const auto check = [&](const char* name, const std::string& seen) {
    const auto wanted = artifact.requirements.find(name);
    if (wanted == artifact.requirements.end() || meets(seen, wanted->second)) return;
    throw Error(
        ErrorCode::backend,
        "engine " + artifact.path + " was built for " + name + " " + wanted->second + ", and here is " + seen,
        "engines built by this very version for this GPU, or to run on others as well",
        "build it here: " + rebuild_command(bundle, artifact));
  };
  check("tensorrt", here.tensorrt);
  check("tensorrt_rtx", "TensorRT " + here.tensorrt);
  check("compute_capability", here.compute_capability);
}

std::string timing_cache_path(const std::string& path, const std::string& version,
                              const std::string& device) {
  const std::size_t name = path.rfind('/') + 1;  // 0 where there is no '/'
  std::size_t dot = path.rfind('.');
  if (dot == std::string::npos || dot <= name) dot = path.size();
  std::string key = ".tensorrt-" + version;
  bool inside = false;
  for (const char letter : device) {
    const bool kept = std::isalnum(static_cast<unsigned char>(letter)) != 0 || letter == '_' || letter == '.';
    if (kept && !inside) key += '-';
    if (kept) key += letter;
    inside = kept;
  }
  return path.substr(0, dot) + key + path.substr(dot);
}

}  // namespace eightfold::detail
