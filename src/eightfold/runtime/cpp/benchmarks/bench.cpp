// Two numbers that only C++ can tell, as JSON: what an engine adds to the ONNX Runtime call it makes, and how
// long decoding takes. Called by benchmarks/cpp_runtime.py.
//
//   eightfold-bench BUNDLE MODEL.onnx THREADS     the bundle holds that very model at batch 1
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <random>
#include <vector>

#include "decode_scratch.hpp"
#include "decoder.hpp"
#include "eightfold/engine.hpp"

namespace {

using Clock = std::chrono::steady_clock;

double ms_of(Clock::duration time) { return std::chrono::duration<double, std::milli>(time).count(); }

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

template <typename Function>
double time_ms(const Function& function) {
  const auto start = Clock::now();
  function();
  return ms_of(Clock::now() - start);
}

struct RawModel {
  RawModel(const char* path, int threads)
      : session(env, path, options_with(threads)), binding(session), input(3 * 224 * 224), output(1000) {
    const Ort::AllocatorWithDefaultOptions allocator;
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const auto input_shape = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();
    const auto output_shape = session.GetOutputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();
    binding.BindInput(session.GetInputNameAllocated(0, allocator).get(),
                      Ort::Value::CreateTensor<float>(memory, input.data(), input.size(), input_shape.data(),
                                                      input_shape.size()));
    binding.BindOutput(session.GetOutputNameAllocated(0, allocator).get(),
                       Ort::Value::CreateTensor<float>(memory, output.data(), output.size(),
                                                       output_shape.data(), output_shape.size()));
  }
  static Ort::SessionOptions options_with(int threads) {
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(threads);
    return options;
  }
  void run() { session.Run(Ort::RunOptions{}, binding); }

  Ort::Env env;
  Ort::Session session;
  Ort::IoBinding binding;
  std::vector<float> input;
  std::vector<float> output;
};

struct Times {
  double raw_ms;
  double engine_ms;
};

// Blocks of calls in turns, in an order that changes, so that what disturbs the machine disturbs both alike.
Times alternated(RawModel& raw, const eightfold::Engine& engine, std::mt19937& random) {
  const eightfold::TensorView view = {raw.input.data(), raw.input.size() * sizeof(float)};
  std::vector<eightfold::Tensor> outputs;
  const auto run_engine = [&] { engine.run_tensors({view}, 1, outputs); };
  const auto run_raw = [&] { raw.run(); };
  std::vector<double> raw_ms;
  std::vector<double> engine_ms;
  const auto time_block = [](const auto& call, std::vector<double>& times) {
    call();  // not timed: it outlasts the other session's spinning threads
    for (int i = 0; i < 20; ++i) times.push_back(time_ms(call));
  };
  for (int round = 0; round < 12; ++round) {
    const bool raw_first = random() % 2 == 0;
    if (raw_first) time_block(run_raw, raw_ms);
    time_block(run_engine, engine_ms);
    if (!raw_first) time_block(run_raw, raw_ms);
  }
  return {median(raw_ms), median(engine_ms)};
}

// Where a session's weights happen to lie in memory makes a percent or two by itself. So both sessions are
// made anew several times, in either order, and the median of the ratios is what the engine adds.
void overhead(const char* bundle, const char* model, int threads) {
  std::mt19937 random(0);
  std::normal_distribution<float> normal;
  eightfold::EngineOptions options;
  options.threads = threads;
  std::vector<Times> pairs;
  for (int pair = 0; pair < 7; ++pair) {
    std::optional<eightfold::Engine> engine;
    if (pair % 2 == 0) engine = eightfold::Engine::load(bundle, options);
    RawModel raw(model, threads);
    if (!engine) engine = eightfold::Engine::load(bundle, options);
    for (float& value : raw.input) value = normal(random);
    pairs.push_back(alternated(raw, *engine, random));
  }
  const auto ratio = [](const Times& times) { return times.engine_ms / times.raw_ms; };
  std::sort(pairs.begin(), pairs.end(), [&](const Times& a, const Times& b) { return ratio(a) < ratio(b); });
  const Times& middle = pairs[pairs.size() / 2];
  std::printf("\"raw_ms\": %.4f, \"engine_ms\": %.4f, \"least_ratio\": %.4f, \"largest_ratio\": %.4f, ",
              middle.raw_ms, middle.engine_ms, ratio(pairs.front()), ratio(pairs.back()));
}

// 8,400 candidates of 80 classes, of which about two hundred are above the threshold, in clusters as objects
// make.
void decoding() {
  constexpr std::size_t candidates = 8400;
  constexpr std::size_t channels = 84;
  std::mt19937 random(1);
  std::uniform_real_distribution<float> unit(0, 1);
  std::vector<float> output(channels * candidates);
  for (float& value : output) value = 0.1F * unit(random);
  for (std::size_t i = 0; i < candidates; ++i) {
    const bool object = i % 42 == 0;
    const float place = object ? 64.0F * static_cast<float>(random() % 8) + 40 : 640 * unit(random);
    output[i] = place + 4 * unit(random);
    output[candidates + i] = place + 4 * unit(random);
    output[2 * candidates + i] = 50 + 10 * unit(random);
    output[3 * candidates + i] = 50 + 10 * unit(random);
    if (object) output[(4 + random() % 80) * candidates + i] = 0.3F + 0.7F * unit(random);
  }
  const std::vector<eightfold::TensorSpec> specs = {
      {"output0", eightfold::DataType::float32, {1, channels, candidates}}};
  const auto decoder = eightfold::detail::decoder_of({"detect", "yolo-boxes", {}, "{}"}, {specs, {640, 640}});
  const eightfold::Placement placement = {{640, 640}, {640, 640}, 0, 0, {640, 640}};
  const std::vector<eightfold::detail::Output> outputs = {{specs.data(), output.data()}};
  eightfold::detail::DecodeScratch scratch;
  eightfold::Prediction prediction;
  std::vector<double> times_ms;
  for (int i = 0; i < 300; ++i) {
    times_ms.push_back(time_ms([&] { decoder->decode(outputs, 0, placement, scratch, prediction); }));
  }
  std::printf("\"decode_ms\": %.4f, \"detections\": %zu", median(times_ms), prediction.detections.size());
}

}  // namespace

int main(int count, char** words) {
  if (count != 4) return 2;
  std::printf("{");
  overhead(words[1], words[2], std::atoi(words[3]));
  decoding();
  std::printf("}\n");
  return 0;
}
