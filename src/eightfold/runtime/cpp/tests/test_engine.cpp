#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <thread>

#include "eightfold/eightfold.h"
#include "eightfold/engine.hpp"
#include "fixtures.hpp"

using namespace eightfold;

namespace {

// One pixel of that colour.
ImageView pixel(const std::uint8_t* color) { return {color, 1, 1, PixelFormat::rgb, 0}; }
constexpr std::uint8_t kRed[] = {255, 0, 0};
constexpr std::uint8_t kGreen[] = {0, 255, 0};
constexpr std::uint8_t kBlue[] = {0, 0, 255};

std::string bundle_in(const fixtures::Folder& folder, const std::vector<int>& batches) {
  fixtures::write_files(folder / "bundle", fixtures::bundle_files(batches));
  return folder / "bundle";
}

EngineOptions one_thread() {
  EngineOptions options;
  options.threads = 1;
  return options;
}

template <typename Function>
ErrorCode code_of(const Function& function) {
  try {
    function();
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode{};
}

}  // namespace

TEST_CASE("an engine answers for each image, whatever the batches") {
  const fixtures::Folder folder;
  for (const std::vector<int>& batches : {std::vector<int>{1}, {4}, {1, 2, 4}}) {
    const Engine engine = Engine::load(bundle_in(folder, batches), one_thread());
    const auto predictions =
        engine.run({pixel(kRed), pixel(kGreen), pixel(kBlue), pixel(kRed), pixel(kGreen)});
    const int expected[] = {0, 1, 2, 0, 1};
    for (std::size_t i = 0; i < 5; ++i) {
      CHECK(predictions[i].classes[0].label == expected[i]);
      CHECK(predictions[i].classes[0].score == doctest::Approx(std::exp(1) / (std::exp(1) + 2)));
    }
    CHECK(engine.label(1) == "green");
    CHECK(engine.label(7) == "7");
  }
}

TEST_CASE("tensors in, tensors out") {
  const fixtures::Folder folder;
  const Engine engine = Engine::load(bundle_in(folder, {2}), one_thread());
  std::vector<float> images(3 * 3 * 64, 0.5F);
  const auto outputs = engine.run_tensors({TensorView{images.data(), images.size() * sizeof(float)}}, 3);
  REQUIRE(outputs.size() == 1);
  CHECK(outputs[0].spec.shape == std::vector<std::int64_t>{3, 3});
  CHECK(reinterpret_cast<const float*>(outputs[0].bytes.data())[8] == doctest::Approx(0.5));
}

TEST_CASE("tensors are run in the caller's memory, also when it moves") {
  const fixtures::Folder folder;
  const Engine engine = Engine::load(bundle_in(folder, {1, 2}), one_thread());
  std::vector<Tensor> outputs;
  for (int i = 0; i < 6; ++i) {
    const std::size_t rows = i % 3 == 2 ? 3 : 2;  // a full batch, or one and a part of the next
    const std::vector<float> images(rows * 3 * 64, static_cast<float>(i));
    engine.run_tensors({TensorView{images.data(), images.size() * sizeof(float)}}, rows, outputs);
    REQUIRE(outputs[0].spec.shape == std::vector<std::int64_t>{static_cast<std::int64_t>(rows), 3});
    const auto* values = reinterpret_cast<const float*>(outputs[0].bytes.data());
    for (std::size_t k = 0; k < 3 * rows; ++k) CHECK(values[k] == static_cast<float>(i));
    CHECK(engine.run({pixel(kGreen)})[0].classes[0].label == 1);
  }
}

TEST_CASE("bad requests fail with a code, and the engine stays usable") {
  const fixtures::Folder folder;
  const Engine engine = Engine::load(bundle_in(folder, {1}), one_thread());
  std::vector<float> image(3 * 64, 0.5F);
  const std::size_t bytes = image.size() * sizeof(float);
  CHECK(code_of([&] { engine.run({}); }) == ErrorCode::usage);
  CHECK(code_of([&] { engine.run({ImageView{}}); }) == ErrorCode::image);
  CHECK(code_of([&] { engine.run_tensors({TensorView{image.data(), bytes}}, 0); }) == ErrorCode::usage);
  CHECK(code_of([&] { engine.run_tensors({TensorView{image.data(), bytes - 4}}, 1); }) == ErrorCode::usage);
  CHECK(code_of([&] { engine.run_tensors({TensorView{nullptr, bytes}}, 1); }) == ErrorCode::usage);
  const std::vector<std::int64_t> shape = {1, 3, 8, 8};
  const std::vector<std::int64_t> other = {1, 4, 8, 6};
  const auto typed = [&](DataType type, const std::vector<std::int64_t>& sides) {
    engine.run_tensors({TensorView{image.data(), bytes, type, sides}}, 1);
  };
  CHECK(code_of([&] { typed(DataType::float32, shape); }) == ErrorCode{});
  CHECK(code_of([&] { typed(DataType::int32, shape); }) == ErrorCode::usage);
  CHECK(code_of([&] { typed(DataType::float32, other); }) == ErrorCode::usage);
  image[17] = NAN;
  CHECK(code_of([&] { engine.run_tensors({TensorView{image.data(), bytes}}, 1); }) == ErrorCode::usage);
  CHECK(engine.run({pixel(kBlue)})[0].classes[0].label == 2);
}

TEST_CASE("what cannot be picked") {
  const fixtures::Folder folder;
  const std::string path = bundle_in(folder, {1});
  const auto load = [&](const EngineOptions& options) {
    return code_of([&] { Engine::load(path, options); });
  };
  EngineOptions options;
  options.backend = "none";
  CHECK(load(options) == ErrorCode::missing_backend);
  options = {};
  options.batch = 3;
  CHECK(load(options) == ErrorCode::usage);
  options = {};
  options.preprocess_threads = 0;
  CHECK(load(options) == ErrorCode::usage);
}

TEST_CASE("one bundle, several sizes of images") {
  const fixtures::Folder folder;
  fixtures::write_files(folder / "bundle", fixtures::bundle_files({1, 2}, {{16, 24}, fixtures::kUsual}));
  const auto load = [&](Size size) {
    EngineOptions options = one_thread();
    options.height = size.height;
    options.width = size.width;
    return Engine::load(folder / "bundle", options);
  };
  for (const Size size : {Size{}, fixtures::kUsual, Size{16, 24}}) {
    const Engine engine = load(size);
    const Size expected = size == Size{} ? fixtures::kUsual : size;
    CHECK(engine.preprocessing().height == expected.height);
    CHECK(engine.preprocessing().width == expected.width);
    CHECK(engine.input_row_bytes() ==
          sizeof(float) * 3 * static_cast<std::size_t>(expected.height * expected.width));
    CHECK(engine.describe().find(" at " + text_of(expected) + " (batch 1, 2)") != std::string::npos);
    const auto predictions = engine.run({pixel(kRed), pixel(kGreen), pixel(kBlue)});
    for (std::size_t i = 0; i < 3; ++i) CHECK(predictions[i].classes[0].label == static_cast<int>(i));
  }
  CHECK(code_of([&] { load({24, 16}); }) == ErrorCode::usage);
  CHECK(code_of([&] { load({8, 0}); }) == ErrorCode::usage);
  CHECK(code_of([&] { load({-8, -8}); }) == ErrorCode::usage);
}

TEST_CASE("a model that is not the manifest's, or no model") {
  const fixtures::Folder folder;
  auto files = fixtures::bundle_files({1, 2});
  std::swap(files["onnx/b1.onnx"], files["onnx/b2.onnx"]);
  fixtures::reseal(files, [](std::string& manifest) {
    const std::string one = "onnx/b1.onnx\": {";
    const std::string two = "onnx/b2.onnx\": {";
    manifest.replace(manifest.find(one), one.size(), "onnx/bX.onnx\": {");
    manifest.replace(manifest.find(two), two.size(), one);
    manifest.replace(manifest.find("onnx/bX.onnx\": {"), one.size(), two);
  });
  fixtures::write_files(folder / "bundle", files);
  const Engine engine = Engine::load(folder / "bundle", one_thread());
  CHECK(code_of([&] { engine.run({pixel(kRed)}); }) == ErrorCode::bundle);
}

TEST_CASE("a file deleted while running fails where it is needed, and the rest goes on") {
  const fixtures::Folder folder;
  const Engine engine = Engine::load(bundle_in(folder, {1, 4}), one_thread());
  CHECK(engine.run({pixel(kRed)})[0].classes[0].label == 0);
  ::unlink((folder / "bundle/onnx/b4.onnx").c_str());
  const std::vector<ImageView> four(4, pixel(kRed));
  CHECK(code_of([&] { engine.run(four); }) == ErrorCode::integrity);
  CHECK(engine.run({pixel(kBlue)})[0].classes[0].label == 2);
}

TEST_CASE("threads share an engine, its slots and its preprocessing") {
  const fixtures::Folder folder;
  EngineOptions options = one_thread();
  options.in_flight = 2;
  options.preprocess_threads = 2;
  const Engine engine = Engine::load(bundle_in(folder, {1, 2}), options);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  const std::uint8_t* const colors[] = {kRed, kGreen, kBlue};
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      std::vector<Prediction> predictions;
      for (int i = 0; i < 50; ++i) {
        engine.run({pixel(colors[thread % 3]), pixel(colors[i % 3])}, predictions);
        wrong += predictions[0].classes[0].label != thread % 3;
        wrong += predictions[1].classes[0].label != i % 3;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("the C interface") {
  const fixtures::Folder folder;
  const std::string path = bundle_in(folder, {1});
  eightfold_engine* engine = nullptr;
  eightfold_result* result = nullptr;
  const eightfold_image image = {kGreen, 1, 1, EIGHTFOLD_RGB, 0};
  REQUIRE(eightfold_engine_load(path.c_str(), nullptr, &engine) == EIGHTFOLD_OK);
  REQUIRE(eightfold_engine_run(engine, &image, 1, &result) == EIGHTFOLD_OK);
  const eightfold_class* classes = nullptr;
  REQUIRE(eightfold_result_classes(result, 0, &classes) == 3);
  CHECK(classes[0].label == 1);
  CHECK(std::string(eightfold_engine_label(engine, classes[0].label)) == "green");
  CHECK(eightfold_result_classes(result, 1, &classes) == 0);
  eightfold_result_free(result);
  eightfold_engine_free(engine);
  eightfold_options options = {};
  options.height = 4;
  options.width = 6;
  CHECK(eightfold_engine_load(path.c_str(), &options, &engine) == EIGHTFOLD_USAGE);
  CHECK(std::string(eightfold_last_error())
            .find("at 4x6; allowed: pruned fp32 on onnxruntime at 8x8, batch 1") != std::string::npos);
  CHECK(eightfold_engine_load("nowhere", nullptr, &engine) == EIGHTFOLD_BUNDLE);
  CHECK(engine == nullptr);
  CHECK(std::string(eightfold_last_error()).find("there is no bundle at 'nowhere'") == 0);
}
