#include "engine_checks.hpp"

#include <algorithm>
#include <string>
#include <thread>

#include "finite.hpp"

namespace eightfold::detail {
namespace {

std::string text_of(span<const std::int64_t> shape) {
  std::string text;
  for (const std::int64_t side : shape) text += (text.empty() ? "" : ", ") + std::to_string(side);
  return "(" + text + ")";
}

[[noreturn]] void wrong_input(const TensorSpec& spec, const std::string& what, const std::string& allowed) {
  throw Error(ErrorCode::usage, "input '" + spec.name + "' " + what, allowed);
}

void check_tensor(const TensorView& view, const TensorSpec& spec, std::size_t rows, int batch) {
  if (view.type && *view.type != spec.type) {
    wrong_input(spec, std::string("is of ") + name_of(*view.type), name_of(spec.type));
  }
  std::vector<std::int64_t> shape = spec.shape;
  const std::size_t expected = row_bytes_of(spec, batch) * rows;
  shape[0] = static_cast<std::int64_t>(rows);
  if (!view.shape.empty() && !std::equal(view.shape.begin(), view.shape.end(), shape.begin(), shape.end())) {
    wrong_input(spec, "has shape " + text_of(view.shape), text_of(shape));
  }
  if (view.data == nullptr || view.bytes != expected) {
    wrong_input(spec, "has " + std::to_string(view.bytes) + " bytes",
                std::to_string(expected) + " for " + std::to_string(rows) + " rows of " + name_of(spec.type));
  }
  if (!all_finite(view.data, expected, spec.type)) {
    wrong_input(spec, "holds NaN or infinity", "finite numbers");
  }
}

}  // namespace

void check_options(const EngineOptions& options) {
  const auto check = [](const char* name, int value, int least) {
    if (value >= least) return;
    throw Error(ErrorCode::usage, std::string(name) + " is " + std::to_string(value),
                std::to_string(least) + " or more");
  };
  check("batch", options.batch, 0);
  check("threads", options.threads, 0);
  // With more than this a back end does nothing but switch from thread to thread, for minutes; as in Python.
  const int most = std::max(16, 4 * static_cast<int>(std::thread::hardware_concurrency()));
  if (options.threads > most) {
    throw Error(ErrorCode::usage, "threads is " + std::to_string(options.threads),
                "up to " + std::to_string(most) + " on this machine");
  }
  check("preprocess_threads", options.preprocess_threads, 1);
  check("in_flight", options.in_flight, 0);
  check("device", options.device, 0);
  check("height", options.height, 0);
  check("width", options.width, 0);
  if ((options.height == 0) != (options.width == 0)) {
    throw Error(ErrorCode::usage,
                "height is " + std::to_string(options.height) + " and width " + std::to_string(options.width),
                "both, or neither");
  }
}

void check_same(const std::vector<TensorSpec>& stated, const std::vector<TensorSpec>& seen,
                const Artifact& artifact) {
  const auto same = [](const TensorSpec& a, const TensorSpec& b) {
    return a.name == b.name && a.type == b.type && a.shape == b.shape;
  };
  if (stated.size() == seen.size() && std::equal(stated.begin(), stated.end(), seen.begin(), same)) return;
  throw Error(ErrorCode::bundle, artifact.path + " has other inputs or outputs than the manifest",
              "what the manifest says", "make the bundle again");
}

void check_image_input(const std::vector<TensorSpec>& inputs, const Preprocessor& preprocessor, int batch) {
  const DataType type = preprocessor.definition().bytes ? DataType::uint8 : DataType::float32;
  if (inputs.size() == 1 && inputs[0].type == type && !inputs[0].shape.empty() &&
      inputs[0].shape[0] == batch &&
      inputs[0].bytes() == preprocessor.bytes() * static_cast<std::size_t>(batch)) {
    return;
  }
  throw Error(ErrorCode::usage, "the model's input is not what the bundle's preprocessing makes",
              "one input of batch x channels x height x width", "pass it tensors with run_tensors");
}

std::size_t row_bytes_of(const TensorSpec& spec, int batch) {
  if (spec.shape.empty() || spec.shape[0] != batch) {
    throw Error(ErrorCode::usage, "'" + spec.name + "' does not have the batch as its first side",
                "tensors of batch x anything");
  }
  return spec.bytes() / static_cast<std::size_t>(batch);
}

void check_tensors(span<const TensorView> views, std::size_t rows, const Artifact& artifact) {
  const std::vector<TensorSpec>& specs = artifact.inputs;
  if (views.size() != specs.size()) {
    throw Error(ErrorCode::usage, std::to_string(views.size()) + " inputs", std::to_string(specs.size()));
  }
  for (std::size_t i = 0; i < specs.size(); ++i) check_tensor(views[i], specs[i], rows, artifact.batch);
}

void check_alike(const std::vector<Artifact>& artifacts) {
  const auto same_row = [](const TensorSpec& a, const TensorSpec& b) {
    return a.name == b.name && a.type == b.type && a.shape.size() == b.shape.size() &&
           std::equal(a.shape.begin() + 1, a.shape.end(), b.shape.begin() + 1);
  };
  for (const Artifact& artifact : artifacts) {
    const std::vector<TensorSpec>& first = artifacts[0].outputs;
    for (const TensorSpec& output : artifact.outputs) row_bytes_of(output, artifact.batch);
    if (artifact.outputs.size() == first.size() &&
        std::equal(first.begin(), first.end(), artifact.outputs.begin(), same_row)) {
      continue;
    }
    throw Error(ErrorCode::bundle, artifact.id + " gives other outputs than " + artifacts[0].id,
                "the same at every batch size", "make the bundle again");
  }
}

}  // namespace eightfold::detail
