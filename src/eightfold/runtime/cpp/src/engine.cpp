#include "eightfold/engine.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "choose.hpp"
#include "decoder.hpp"
#include "engine_checks.hpp"
#include "packing.hpp"
#include "session_pool.hpp"
#include "thread_pool.hpp"

namespace eightfold {
namespace {

using detail::Request;
using detail::Session;
using detail::SessionPool;

void shape_outputs(const Artifact& artifact, std::size_t rows, std::vector<Tensor>& outputs) {
  outputs.resize(artifact.outputs.size());
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const TensorSpec& spec = artifact.outputs[i];
    outputs[i].spec = spec;
    outputs[i].spec.shape[0] = static_cast<std::int64_t>(rows);
    outputs[i].bytes.resize(detail::row_bytes_of(spec, artifact.batch) * rows);
  }
}

std::unique_ptr<detail::Decoder> make_decoder(const Task& task, const std::vector<Artifact>& artifacts,
                                              Size tensor) {
  detail::check_alike(artifacts);
  return detail::decoder_of(task, {artifacts[0].outputs, tensor});
}

// The manifest's, at the size of what was picked.
Preprocess preprocess_of(const Manifest& manifest, const detail::Choice& choice) {
  return choice.size ? manifest.preprocess.at_size(*choice.size) : manifest.preprocess;
}

detail::Choice choice_for_here(const Bundle& bundle, const EngineOptions& options) {
  const std::optional<detail::LatencyTable> table = detail::table_for_here(bundle);
  return detail::choose(bundle.manifest(), detail::backend_entries(), options, table ? &*table : nullptr);
}

int default_in_flight() { return std::max(2, static_cast<int>(std::thread::hardware_concurrency())); }

}  // namespace

struct Engine::State {
  State(Bundle opened, EngineOptions chosen)
      : bundle(std::move(opened)),
        options(std::move(chosen)),
        choice(choice_for_here(bundle, options)),
        backend(choice.backend->name),
        preprocessor(preprocess_of(bundle.manifest(), choice)),
        decoder(make_decoder(bundle.manifest().task, choice.artifacts, tensor_size())),
        threads(options.preprocess_threads) {
    for (const Artifact& artifact : choice.artifacts) batches.push_back(artifact.batch);
  }

  // For preprocessing apart from a request.
  struct Scratch {
    std::vector<PreprocessScratch> threads;
    std::vector<Placement> placements;
  };

  Size tensor_size() const { return {preprocessor.definition().height, preprocessor.definition().width}; }
  SessionPool& pool(int batch);
  std::unique_ptr<Scratch> take_scratch();
  std::unique_ptr<Session> open(const Artifact& artifact) const;
  void preprocess(span<const ImageView> images, std::uint8_t* tensor, std::vector<PreprocessScratch>& buffers,
                  std::vector<Placement>& placements);
  void run_part(span<const ImageView> images, int batch, Prediction* predictions);
  void run_tensor_part(span<const TensorView> inputs, std::size_t first, std::size_t rows, int batch,
                       std::vector<Tensor>& outputs);
  static void run_padded(Request& request, const Session& session, std::size_t rows, int batch);

  Bundle bundle;
  EngineOptions options;
  detail::Choice choice;
  std::string backend;
  std::vector<int> batches;
  Preprocessor preprocessor;
  std::unique_ptr<detail::Decoder> decoder;
  detail::ThreadPool threads;
  std::mutex lock;
  std::map<int, std::unique_ptr<SessionPool>> pools;
  std::vector<std::unique_ptr<Scratch>> scratch;
};

std::unique_ptr<Engine::State::Scratch> Engine::State::take_scratch() {
  const std::lock_guard<std::mutex> guard(lock);
  if (scratch.empty()) {
    auto made = std::make_unique<Scratch>();
    made->threads.resize(static_cast<std::size_t>(threads.size()));
    return made;
  }
  std::unique_ptr<Scratch> taken = std::move(scratch.back());
  scratch.pop_back();
  return taken;
}

std::unique_ptr<Session> Engine::State::open(const Artifact& artifact) const {
  std::unique_ptr<Session> session = choice.backend->open(bundle, artifact, options);
  detail::check_same(artifact.inputs, session->inputs(), artifact);
  detail::check_same(artifact.outputs, session->outputs(), artifact);
  return session;
}

SessionPool& Engine::State::pool(int batch) {
  const std::lock_guard<std::mutex> guard(lock);
  std::unique_ptr<SessionPool>& pool = pools[batch];
  if (!pool) {
    const auto artifact = std::find_if(choice.artifacts.begin(), choice.artifacts.end(),
                                       [&](const Artifact& each) { return each.batch == batch; });
    const int limit = options.in_flight > 0 ? options.in_flight : default_in_flight();
    pool = std::make_unique<SessionPool>(open(*artifact), limit, threads.size());
  }
  return *pool;
}

// Threads share the images, or the rows of each image where there are fewer images than threads.
void Engine::State::preprocess(span<const ImageView> images, std::uint8_t* tensor,
                               std::vector<PreprocessScratch>& buffers, std::vector<Placement>& placements) {
  const auto count = static_cast<int>(images.size());
  const int bands = count < threads.size() && preprocessor.shares_rows() ? threads.size() : 1;
  const int height = preprocessor.definition().height;
  placements.resize(images.size());
  threads.run(count * bands, [&](int part, int thread) {
    const auto image = static_cast<std::size_t>(part / bands);
    const int band = part % bands;
    const RowRange rows = {height * band / bands, height * (band + 1) / bands};
    const Placement placement = preprocessor.run(images[image], tensor + image * preprocessor.bytes(),
                                                 buffers[static_cast<std::size_t>(thread)], rows);
    if (band == 0) placements[image] = placement;
  });
}

void Engine::State::run_part(span<const ImageView> images, int batch, Prediction* predictions) {
  SessionPool& models = pool(batch);
  detail::check_image_input(models.session().inputs(), preprocessor, batch);
  const SessionPool::Lease request(models);
  const std::size_t filled = images.size() * preprocessor.bytes();
  auto* tensor = static_cast<std::uint8_t*>(request->slot->input(0));
  preprocess(images, tensor, request->preprocess, request->placements);
  std::memset(tensor + filled, 0, static_cast<std::size_t>(batch) * preprocessor.bytes() - filled);
  request->slot->run();
  for (std::size_t i = 0; i < request->outputs.size(); ++i)
    request->outputs[i].data = request->slot->output(i);
  for (std::size_t row = 0; row < images.size(); ++row) {
    decoder->decode(request->outputs, row, request->placements[row], request->decode, predictions[row]);
  }
}

// A full batch is run in the caller's memory, a part of one in the slot's, padded with zeros.
void Engine::State::run_tensor_part(span<const TensorView> inputs, std::size_t first, std::size_t rows,
                                    int batch, std::vector<Tensor>& outputs) {
  SessionPool& models = pool(batch);
  const SessionPool::Lease request(models);
  request->input_views.clear();
  request->output_views.clear();
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const std::size_t row = detail::row_bytes_of(models.session().inputs()[i], batch);
    request->input_views.push_back(static_cast<const std::uint8_t*>(inputs[i].data) + first * row);
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const std::size_t row = detail::row_bytes_of(models.session().outputs()[i], batch);
    request->output_views.push_back(outputs[i].bytes.data() + first * row);
  }
  if (rows == static_cast<std::size_t>(batch)) {
    request->slot->run_on(request->input_views, request->output_views);
  } else {
    run_padded(*request, models.session(), rows, batch);
  }
}

void Engine::State::run_padded(Request& request, const Session& session, std::size_t rows, int batch) {
  const auto padding = static_cast<std::size_t>(batch) - rows;
  for (std::size_t i = 0; i < session.inputs().size(); ++i) {
    const std::size_t row = detail::row_bytes_of(session.inputs()[i], batch);
    auto* target = static_cast<std::uint8_t*>(request.slot->input(i));
    std::memcpy(target, request.input_views[i], rows * row);
    std::memset(target + rows * row, 0, padding * row);
  }
  request.slot->run();
  for (std::size_t i = 0; i < session.outputs().size(); ++i) {
    const std::size_t row = detail::row_bytes_of(session.outputs()[i], batch);
    std::memcpy(request.output_views[i], request.slot->output(i), rows * row);
  }
}

Engine::Engine(std::unique_ptr<State> state) : state_(std::move(state)) {}
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;
Engine::~Engine() = default;

Engine Engine::load(const std::string& path, const EngineOptions& options) {
  detail::check_options(options);
  return Engine(std::make_unique<State>(Bundle::open(path, options.public_key), options));
}

std::vector<Prediction> Engine::run(span<const ImageView> images) const {
  std::vector<Prediction> predictions;
  run(images, predictions);
  return predictions;
}

void Engine::run(span<const ImageView> images, std::vector<Prediction>& predictions) const {
  if (images.empty() || images.size() > std::numeric_limits<int>::max()) {
    throw Error(ErrorCode::usage, std::to_string(images.size()) + " images", "one or more");
  }
  predictions.resize(images.size());
  std::size_t first = 0;
  for (const int batch : detail::pack(static_cast<int>(images.size()), state_->batches)) {
    const std::size_t rows = std::min(static_cast<std::size_t>(batch), images.size() - first);
    state_->run_part(images.subspan(first, rows), batch, predictions.data() + first);
    first += rows;
  }
}

std::vector<Tensor> Engine::run_tensors(span<const TensorView> inputs, std::size_t rows) const {
  std::vector<Tensor> outputs;
  run_tensors(inputs, rows, outputs);
  return outputs;
}

void Engine::run_tensors(span<const TensorView> inputs, std::size_t rows,
                         std::vector<Tensor>& outputs) const {
  if (rows == 0 || rows > std::numeric_limits<int>::max()) {
    throw Error(ErrorCode::usage, std::to_string(rows) + " rows", "one or more");
  }
  const Artifact& any = state_->choice.artifacts[0];
  detail::check_tensors(inputs, rows, any);
  shape_outputs(any, rows, outputs);
  std::size_t first = 0;
  for (const int batch : detail::pack(static_cast<int>(rows), state_->batches)) {
    const std::size_t part = std::min(static_cast<std::size_t>(batch), rows - first);
    state_->run_tensor_part(inputs, first, part, batch, outputs);
    first += part;
  }
}

void Engine::preprocess(span<const ImageView> images, void* tensor) const {
  std::unique_ptr<State::Scratch> scratch = state_->take_scratch();
  state_->preprocess(images, static_cast<std::uint8_t*>(tensor), scratch->threads, scratch->placements);
  const std::lock_guard<std::mutex> guard(state_->lock);
  state_->scratch.push_back(std::move(scratch));
}

std::size_t Engine::input_row_bytes() const { return state_->preprocessor.bytes(); }

void Engine::warmup(int runs) const {
  for (const int batch : state_->batches) {
    const SessionPool::Lease request(state_->pool(batch));
    for (int i = 0; i < runs; ++i) request->slot->run();
  }
}

const Manifest& Engine::manifest() const { return state_->bundle.manifest(); }
const std::string& Engine::backend() const { return state_->backend; }
const std::vector<Artifact>& Engine::artifacts() const { return state_->choice.artifacts; }
const Preprocess& Engine::preprocessing() const { return state_->preprocessor.definition(); }

std::string Engine::describe() const { return detail::described(state_->choice, manifest()); }

std::string Engine::label(int index) const {
  const std::vector<std::string>& labels = manifest().task.labels;
  const bool named = index >= 0 && static_cast<std::size_t>(index) < labels.size();
  return named ? labels[static_cast<std::size_t>(index)] : std::to_string(index);
}

}  // namespace eightfold
