// eightfold-build: a TensorRT engine from an ONNX file, on the board that will run it.
#include "eightfold/build.hpp"

#include <cstdio>
#include <sstream>

#include "arguments.hpp"
#include "eightfold/error.hpp"

namespace {

constexpr const char* kHelp =
    "usage: eightfold-build MODEL.onnx -o ENGINE [options]\n"
    "\n"
    "  --precision NAME     fp32, fp16 (default) or int8, which needs a graph with Q/DQ for TensorRT\n"
    "  --workspace-mib N    memory that a layer may use while it runs; by default TensorRT's own limit\n"
    "  --timing-cache FILE  read if it is there, and written: later builds are faster\n"
    "  --dla N              run what can on this DLA core, the rest on the GPU\n"
    "  --no-gpu-fallback    fail where the DLA core does not take a layer\n"
    "  --tactic-sources NAMES   libraries to take kernels from, parted by commas, such as CUDNN,CUBLAS\n"
    "  --refit                  weights can be replaced later: eightfold refit\n"
    "  --strip-weights          leave the weights out until then; from TensorRT 10.0\n"
    "  --optimization-level N   0 (fast build) to 5 (fast engine)\n"
    "  --version-compatible     runs on later versions of TensorRT, too; brings machine code along\n"
    "  --hardware-compatible    runs on every GPU from Ampere on; not on Jetson\n"
    "  --device N           number of the GPU\n"
    "  --verbose            print what the parser and the builder say\n";

eightfold::Precision precision_from(const std::string& name) {
  if (name == "fp32") return eightfold::Precision::fp32;
  if (name == "fp16") return eightfold::Precision::fp16;
  if (name == "int8") return eightfold::Precision::int8;
  throw eightfold::Error(eightfold::ErrorCode::usage, "--precision " + name, "fp32, fp16, int8");
}

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words;
  std::istringstream parts(text);
  for (std::string word; std::getline(parts, word, ',');) words.push_back(word);
  return words;
}

int body(int count, char** words) {
  const programs::Arguments arguments(count, words,
                                      {"-o", "--precision", "--workspace-mib", "--timing-cache", "--dla",
                                       "--tactic-sources", "--optimization-level", "--device"},
                                      {"--no-gpu-fallback", "--version-compatible", "--hardware-compatible",
                                       "--refit", "--strip-weights", "--verbose", "--help", "-h"});
  if (arguments.has("--help") || arguments.has("-h") || arguments.positional().size() != 1 ||
      !arguments.has("-o")) {
    const bool asked = arguments.has("--help") || arguments.has("-h");
    std::fputs(kHelp, asked ? stdout : stderr);
    return asked ? 0 : 2;
  }
  eightfold::BuildOptions options;
  options.onnx_path = arguments.positional()[0];
  options.engine_path = arguments.text("-o", "");
  options.precision = precision_from(arguments.text("--precision", "fp16"));
  options.workspace_mib = static_cast<std::size_t>(arguments.whole("--workspace-mib", 0));
  options.timing_cache_path = arguments.text("--timing-cache", "");
  options.dla_core = arguments.has("--dla") ? arguments.whole("--dla", 0) : -1;
  options.device = arguments.whole("--device", 0);
  options.gpu_fallback = !arguments.has("--no-gpu-fallback");
  options.optimization_level =
      arguments.has("--optimization-level") ? arguments.whole("--optimization-level", 0) : -1;
  options.tactic_sources = words_of(arguments.text("--tactic-sources", ""));
  options.refittable = arguments.has("--refit");
  options.strip_weights = arguments.has("--strip-weights");
  options.version_compatible = arguments.has("--version-compatible");
  options.hardware_compatible = arguments.has("--hardware-compatible");
  const eightfold::BuildReport report = eightfold::build_engine(options);
  if (arguments.has("--verbose")) {
    for (const std::string& message : report.messages) std::printf("%s\n", message.c_str());
  }
  std::printf("%s: %.1f MB, built by TensorRT %s in %.1f s\n", options.engine_path.c_str(),
              static_cast<double>(report.bytes) / 1e6, report.version.c_str(), report.seconds);
  return 0;
}

}  // namespace

int main(int count, char** words) { return programs::guarded("eightfold-build", body, count, words); }
