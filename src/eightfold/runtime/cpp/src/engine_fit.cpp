#include "engine_fit.hpp"

#include <algorithm>

#include "eightfold/error.hpp"

namespace eightfold::detail {
namespace {

// The first three numbers of a version: builds of one release run each other's engines.
std::string release_of(const std::string& version) {
  std::size_t end = 0;
  for (int dots = 0; end < version.size(); ++end) {
    if (version[end] == '.' && ++dots == 3) break;
  }
  return version.substr(0, end);
}

// An INT8 engine is built from the graph with Q/DQ for TensorRT, any other from the plain one.
bool is_source_of(const Artifact& graph, const Artifact& engine) {
  if (graph.format != Format::onnx || graph.variant != engine.variant || graph.batch != engine.batch)
    return false;
  return engine.precision == Precision::int8
             ? graph.precision == Precision::int8 && graph.target.find("tensorrt") == 0
             : graph.target == "any";
}

}  // namespace

std::string rebuild_command(const Bundle& bundle, const Artifact& artifact) {
  const std::vector<Artifact>& all = bundle.manifest().artifacts;
  const auto graph = std::find_if(all.begin(), all.end(),
                                  [&](const Artifact& each) { return is_source_of(each, artifact); });
  const std::string source = graph == all.end() ? "MODEL.onnx" : bundle.path() + "/" + graph->path;
  const std::string engine = artifact.path.substr(artifact.path.rfind('/') + 1);
  return "eightfold-build " + source + " -o " + engine + " --precision " + name_of(artifact.precision);
}

void check_engine_fits(const Bundle& bundle, const Artifact& artifact, const EngineHost& here) {
  const auto check = [&](const char* name, const std::string& seen) {
    const auto wanted = artifact.requirements.find(name);
    if (wanted == artifact.requirements.end() || release_of(wanted->second) == release_of(seen)) return;
    throw Error(
        ErrorCode::backend,
        "engine " + artifact.path + " was built for " + name + " " + wanted->second + ", and here is " + seen,
        "engines built by this very version for this GPU",
        "build it here: " + rebuild_command(bundle, artifact));
  };
  check("tensorrt", here.tensorrt);
  check("compute_capability", here.compute_capability);
}

}  // namespace eightfold::detail
