#include <NvInferPlugin.h>
#include <NvOnnxParser.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "eightfold/build.hpp"
#include "eightfold/error.hpp"
#include "engine_fit.hpp"
#include "file.hpp"
#include "onnx_digest.hpp"
#include "sha256.hpp"
#include "trt_common.hpp"

namespace eightfold {
namespace {

using detail::TrtLogger;
using Clock = std::chrono::steady_clock;

[[noreturn]] void refused(const BuildOptions& options, const std::string& reason) {
  const std::string version = detail::trt_library_version();
  throw Error(ErrorCode::build,
              "TensorRT " + version + " cannot build " + options.onnx_path + " (" + reason + ")",
              "a graph that this TensorRT supports",
              "export it for this version: eightfold export MODEL --target tensorrt:" +
                  version.substr(0, version.rfind('.')));
}

std::vector<std::uint8_t> read_file(const std::string& path) {
  const detail::File file = detail::File::open(path, detail::Links::follow);
  std::vector<std::uint8_t> bytes(file.size());
  if (!file.read_at(0, bytes)) throw Error(ErrorCode::build, "cannot read " + path, "a complete file");
  return bytes;
}

// Where and why: before 10 the parser gives the node's number only.
std::string reason_of(const nvonnxparser::IParserError& error) {
#if NV_TENSORRT_MAJOR >= 10
  const auto text = [](const char* given) { return std::string(given == nullptr ? "" : given); };
  const std::string place = "'" + text(error.nodeName()) + "' (" + text(error.nodeOperator()) + ")";
#else
  const std::string place = "number " + std::to_string(error.node());
#endif
  return "at node " + place + ": " + error.desc();
}

// Whole or not at all: written beside, then renamed.
void write_whole(const std::string& path, span<const std::uint8_t> bytes) {
  // Two builds may share a timing cache: each has a name of its own.
  const std::string temporary = path + "." + std::to_string(::getpid()) + ".tmp";
  try {
    detail::write_file(temporary, bytes);
  } catch (const Error&) {
    std::remove(temporary.c_str());  // the half that fitted on the disk
    throw;
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    std::remove(temporary.c_str());
    throw Error(ErrorCode::build, "cannot write " + path, "a writable place");
  }
}

span<const std::uint8_t> bytes_of(const nvinfer1::IHostMemory& memory) {
  return {static_cast<const std::uint8_t*>(memory.data()), memory.size()};
}

#if EIGHTFOLD_TRT_PRECISION_FLAGS
// A graph with Q/DQ has layers of all three; TensorRT takes the fastest of what is allowed.
std::vector<std::pair<nvinfer1::BuilderFlag, const char*>> flags_for(Precision precision) {
  switch (precision) {
    case Precision::int8:
      return {{nvinfer1::BuilderFlag::kINT8, "INT8"}, {nvinfer1::BuilderFlag::kFP16, "FP16"}};
    case Precision::fp16:
      return {{nvinfer1::BuilderFlag::kFP16, "FP16"}};
    case Precision::fp32:
      return {};
    default:
      throw Error(ErrorCode::usage, "precision bf16", "fp32, fp16, int8");
  }
}
#endif

// Where kernels can come from in this version.
const std::vector<std::pair<std::string, nvinfer1::TacticSource>>& known_sources() {
  using nvinfer1::TacticSource;
  static const std::vector<std::pair<std::string, TacticSource>> known = {
#if NV_TENSORRT_MAJOR < 11
    {"CUBLAS", TacticSource::kCUBLAS},
    {"CUBLAS_LT", TacticSource::kCUBLAS_LT},
    {"CUDNN", TacticSource::kCUDNN},
#endif
#if NV_TENSORRT_MAJOR > 8 || (NV_TENSORRT_MAJOR == 8 && NV_TENSORRT_MINOR >= 4)
    {"EDGE_MASK_CONVOLUTIONS", TacticSource::kEDGE_MASK_CONVOLUTIONS},
#endif
#if NV_TENSORRT_MAJOR > 8 || (NV_TENSORRT_MAJOR == 8 && NV_TENSORRT_MINOR >= 5)
    {"JIT_CONVOLUTIONS", TacticSource::kJIT_CONVOLUTIONS},
#endif
  };
  return known;
}

nvinfer1::TacticSource source_named(const std::string& name) {
  std::string names;
  for (const auto& [known, source] : known_sources()) {
    if (known == name) return source;
    names += (names.empty() ? "" : ", ") + known;
  }
  throw Error(ErrorCode::usage,
              "TensorRT " + detail::trt_library_version() + " has no tactic source '" + name + "'", names);
}

class EngineBuilder {
 public:
  explicit EngineBuilder(const BuildOptions& options)
      : options_(options), logger_(TrtLogger::Severity::kINFO) {
    detail::check_cuda(cudaSetDevice(options.device), "use the GPU");
    initLibNvInferPlugins(&logger_, "");
    builder_.reset(nvinfer1::createInferBuilder(logger_));
    if (!builder_) refused(options_, logger_.reason());
    network_.reset(builder_->createNetworkV2(network_flags()));
    config_.reset(builder_->createBuilderConfig());
    if (!network_ || !config_) refused(options_, logger_.reason());
    parser_.reset(nvonnxparser::createParser(*network_, logger_));
    if (!parser_) refused(options_, logger_.reason());
  }

  std::unique_ptr<nvinfer1::IHostMemory> build() {
    if (!parser_->parseFromFile(options_.onnx_path.c_str(),
                                static_cast<int>(TrtLogger::Severity::kWARNING))) {
      refused(options_, parser_->getNbErrors() > 0 ? reason_of(*parser_->getError(0)) : logger_.reason());
    }
    configure();
    std::unique_ptr<nvinfer1::IHostMemory> plan(builder_->buildSerializedNetwork(*network_, *config_));
    if (!plan) refused(options_, logger_.reason());
    keep_timing_cache();
    return plan;
  }

  std::vector<TensorSpec> inputs() const {
    std::vector<TensorSpec> specs;
    for (int i = 0; i < network_->getNbInputs(); ++i) specs.push_back(spec_of(*network_->getInput(i)));
    return specs;
  }
  std::vector<TensorSpec> outputs() const {
    std::vector<TensorSpec> specs;
    for (int i = 0; i < network_->getNbOutputs(); ++i) specs.push_back(spec_of(*network_->getOutput(i)));
    return specs;
  }
  const std::vector<std::string>& flags() const { return flags_; }
  const std::vector<std::string>& gpu_layers() const { return gpu_layers_; }
  std::vector<std::string> messages() const { return logger_.messages(); }

 private:
  static nvinfer1::NetworkDefinitionCreationFlags network_flags() {
#if NV_TENSORRT_MAJOR < 10
    return 1U << static_cast<unsigned>(nvinfer1::NetworkDefinitionCreationFlag::kEXPLICIT_BATCH);
#else
    return 0;
#endif
  }

  static TensorSpec spec_of(const nvinfer1::ITensor& tensor) {
    return detail::spec_from(tensor.getName(), tensor.getType(), tensor.getDimensions());
  }

  void configure() {
#if NV_TENSORRT_MAJOR < 10
    flags_.emplace_back("EXPLICIT_BATCH");
#endif
#if EIGHTFOLD_TRT_PRECISION_FLAGS
    require_int8();
    for (const auto& [flag, name] : flags_for(options_.precision)) {
      config_->setFlag(flag);
      flags_.emplace_back(name);
    }
#endif
    if (options_.workspace_mib > 0) set_workspace(options_.workspace_mib << 20U);
    if (options_.dla_core >= 0) use_dla();
    if (!options_.tactic_sources.empty()) set_tactic_sources();
    set_weights();
    set_compatibility();
    load_timing_cache();
  }

#if EIGHTFOLD_TRT_COMPATIBILITY
  void set_compatibility() {
    if (options_.optimization_level >= 0) config_->setBuilderOptimizationLevel(options_.optimization_level);
    if (options_.version_compatible) {
      config_->setFlag(nvinfer1::BuilderFlag::kVERSION_COMPATIBLE);
      flags_.emplace_back("VERSION_COMPATIBLE");
    }
    if (options_.hardware_compatible) {
      config_->setHardwareCompatibilityLevel(nvinfer1::HardwareCompatibilityLevel::kAMPERE_PLUS);
      flags_.emplace_back("AMPERE_PLUS");
    }
  }
#else
  void set_compatibility() const {
    if (options_.optimization_level < 0 && !options_.version_compatible && !options_.hardware_compatible)
      return;
    throw Error(
        ErrorCode::build,
        "TensorRT " + detail::trt_library_version() + " has no optimization levels and no compatible engines",
        "these options from 8.6 on", "leave them out");
  }
#endif

#if EIGHTFOLD_TRT_PRECISION_FLAGS
  // Nano and TX2 have none.
  void require_int8() const {
    if (options_.precision != Precision::int8 || builder_->platformHasFastInt8()) return;
    throw Error(ErrorCode::build, "this GPU has no INT8 arithmetic", "fp16 and fp32",
                "build with --precision fp16 from the FP32 graph");
  }
#endif

  void set_tactic_sources() {
    nvinfer1::TacticSources sources = 0;
    for (const std::string& name : options_.tactic_sources) {
      sources |= 1U << static_cast<unsigned>(source_named(name));
    }
    config_->setTacticSources(sources);
  }

  void set_weights() {
    if (options_.refittable) {
      config_->setFlag(nvinfer1::BuilderFlag::kREFIT);
      flags_.emplace_back("REFIT");
    }
    if (!options_.strip_weights) return;
#if EIGHTFOLD_TRT_STRIPPING
    config_->setFlag(nvinfer1::BuilderFlag::kSTRIP_PLAN);
    flags_.emplace_back("STRIP_PLAN");
#else
    throw Error(ErrorCode::build,
                "TensorRT " + detail::trt_library_version() + " has no engines without weights",
                "this option from 10.0 on", "leave it out");
#endif
  }

  void set_workspace(std::size_t bytes) {
#if NV_TENSORRT_MAJOR > 8 || (NV_TENSORRT_MAJOR == 8 && NV_TENSORRT_MINOR >= 4)
    config_->setMemoryPoolLimit(nvinfer1::MemoryPoolType::kWORKSPACE, bytes);
#else
    config_->setMaxWorkspaceSize(bytes);
#endif
  }

  void use_dla() {
    if (options_.dla_core >= builder_->getNbDLACores()) {
      throw Error(ErrorCode::usage, "DLA core " + std::to_string(options_.dla_core),
                  std::to_string(builder_->getNbDLACores()) + " cores, numbered from 0");
    }
    config_->setDefaultDeviceType(nvinfer1::DeviceType::kDLA);
    config_->setDLACore(options_.dla_core);
    if (options_.gpu_fallback) {
      config_->setFlag(nvinfer1::BuilderFlag::kGPU_FALLBACK);
      flags_.emplace_back("GPU_FALLBACK");
    }
    for (int i = 0; i < network_->getNbLayers(); ++i) {
      const nvinfer1::ILayer* layer = network_->getLayer(i);
      if (!config_->canRunOnDLA(layer)) gpu_layers_.emplace_back(layer->getName());
    }
  }

  using Cache = std::unique_ptr<nvinfer1::ITimingCache>;

  // What the file holds; nothing where there is no file.
  Cache stored_times() const {
    std::vector<std::uint8_t> known;
    if (detail::status_of(cache_path_, detail::Links::follow).kind == detail::Kind::file) {
      known = read_file(cache_path_);
    }
    return Cache(config_->createTimingCache(known.data(), known.size()));
  }

  void load_timing_cache() {
    if (options_.timing_cache_path.empty()) return;
    cache_path_ = detail::timing_cache_path(options_.timing_cache_path, detail::trt_library_version(),
                                            detail::device_name(options_.device));
    cache_ = stored_times();
    if (cache_ && config_->setTimingCache(*cache_, false)) return;
    // Of another driver, say: begun anew.
    cache_.reset(config_->createTimingCache(nullptr, 0));
    if (cache_) config_->setTimingCache(*cache_, false);
  }

  // Merged with what another build may have written meanwhile.
  void keep_timing_cache() const {
    if (!cache_) return;
    if (const Cache stored = stored_times()) cache_->combine(*stored, false);
    const std::unique_ptr<nvinfer1::IHostMemory> bytes(cache_->serialize());
    if (bytes) write_whole(cache_path_, bytes_of(*bytes));
  }

  const BuildOptions& options_;
  TrtLogger logger_;
  std::unique_ptr<nvinfer1::IBuilder> builder_;
  std::unique_ptr<nvinfer1::INetworkDefinition> network_;
  std::unique_ptr<nvinfer1::IBuilderConfig> config_;
  std::unique_ptr<nvonnxparser::IParser> parser_;
  std::unique_ptr<nvinfer1::ITimingCache> cache_;
  std::string cache_path_;
  std::vector<std::string> flags_;
  std::vector<std::string> gpu_layers_;
};

nlohmann::json json_of(const std::vector<TensorSpec>& specs) {
  nlohmann::json list = nlohmann::json::array();
  for (const TensorSpec& spec : specs) {
    list.push_back({{"name", spec.name}, {"dtype", name_of(spec.type)}, {"shape", spec.shape}});
  }
  return list;
}

// As Python's BuildOptions has them; null stands for TensorRT's own choice.
nlohmann::json json_of(const BuildOptions& options) {
  const auto given = [](bool is_given, auto value) {
    return is_given ? nlohmann::json(value) : nlohmann::json();
  };
  return {{"workspace_bytes", given(options.workspace_mib > 0, options.workspace_mib << 20U)},
          {"optimization_level", given(options.optimization_level >= 0, options.optimization_level)},
          {"tactic_sources", given(!options.tactic_sources.empty(), options.tactic_sources)},
          {"device", options.device},
          {"dla_core", given(options.dla_core >= 0, options.dla_core)},
          {"gpu_fallback", options.gpu_fallback},
          {"version_compatible", options.version_compatible},
          {"hardware_compatible", options.hardware_compatible},
          {"refittable", options.refittable},
          {"strip_weights", options.strip_weights}};
}

// The record that Python's EngineRecord reads.
std::string sidecar(const BuildOptions& options, const EngineBuilder& builder, span<const std::uint8_t> plan,
                    double seconds) {
  const std::string version = detail::trt_library_version();
  const std::vector<std::uint8_t> onnx = read_file(options.onnx_path);
  const nlohmann::json record = {{"kind", "engine record"},
                                 {"schema", 1},
                                 {"target", "tensorrt:" + version.substr(0, version.rfind('.'))},
                                 {"precision", name_of(options.precision)},
                                 {"builder", "tensorrt"},
                                 {"builder_version", version},
                                 {"device", detail::device_name(options.device)},
                                 {"compute_capability", detail::compute_capability(options.device)},
                                 {"flags", builder.flags()},
                                 {"options", json_of(options)},
                                 {"gpu_layers", builder.gpu_layers()},
                                 {"onnx_sha256", detail::sha256_hex(onnx)},
                                 {"parsed_sha256", detail::sha256_of_onnx(options.onnx_path)},
                                 {"engine_sha256", detail::sha256_hex(plan)},
                                 {"engine_bytes", plan.size()},
                                 {"seconds", seconds},
                                 {"inputs", json_of(builder.inputs())},
                                 {"outputs", json_of(builder.outputs())},
                                 {"steps", nlohmann::json::array()},
                                 {"messages", builder.messages()}};
  return record.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

bool is_same_file(const std::string& one, const std::string& other) {
  struct stat first = {}, second = {};
  return stat(one.c_str(), &first) == 0 && stat(other.c_str(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

// What is written comes to lie where nothing that is read lies: a graph may be its owner's only one.
void require_own_places(const BuildOptions& options) {
  for (const std::string& written :
       {options.engine_path, options.engine_path + ".json", options.timing_cache_path}) {
    if (is_same_file(written, options.onnx_path)) {
      throw Error(ErrorCode::usage, written + " is an input and would be overwritten", "another output name");
    }
  }
}

}  // namespace

BuildReport build_engine(const BuildOptions& options) {
  if (detail::status_of(options.onnx_path, detail::Links::follow).kind != detail::Kind::file) {
    throw Error(ErrorCode::usage, "there is no file '" + options.onnx_path + "'",
                "an ONNX file of fixed sizes");
  }
  require_own_places(options);
  const auto start = Clock::now();
  EngineBuilder builder(options);
  const std::unique_ptr<nvinfer1::IHostMemory> plan = builder.build();
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const std::string record = sidecar(options, builder, bytes_of(*plan), seconds);
  write_whole(options.engine_path, bytes_of(*plan));
  write_whole(options.engine_path + ".json",
              {reinterpret_cast<const std::uint8_t*>(record.data()), record.size()});
  return {detail::trt_library_version(), seconds, plan->size(), builder.messages()};
}

}  // namespace eightfold
