// The C interface: exceptions become status codes here and nowhere else.
#include <algorithm>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "eightfold/eightfold.h"
#include "eightfold/engine.hpp"
#include "eightfold/version.hpp"

struct eightfold_engine {
  eightfold::Engine engine;
  std::string description;
  std::vector<eightfold_tensor> inputs;  // views of what the engine holds
};

struct eightfold_tensors {
  std::vector<eightfold::Tensor> tensors;
  std::vector<eightfold_tensor> views;
};

struct eightfold_result {
  std::vector<eightfold::Prediction> predictions;
  std::vector<std::vector<eightfold_mask>> masks;        // views of what the predictions hold, by image
  std::vector<std::vector<eightfold_picture>> pictures;  // none or one each
};

namespace {

using eightfold::Error;
using eightfold::ErrorCode;

std::string& last_error() {
  thread_local std::string message;
  return message;
}

eightfold_status failed(ErrorCode code, const char* message) noexcept {
  try {
    last_error() = message;
  } catch (...) {
    last_error().clear();  // no memory left, not even for the message
  }
  return static_cast<eightfold_status>(code);
}

template <typename Function>
eightfold_status guarded(const Function& function) noexcept {
  try {
    function();
    return EIGHTFOLD_OK;
  } catch (const Error& error) {
    return failed(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return failed(ErrorCode::internal, "no memory left");
  } catch (const std::exception& error) {
    return failed(ErrorCode::internal, error.what());
  } catch (...) {
    return failed(ErrorCode::internal, "an unknown exception");
  }
}

void require(const void* pointer, const char* name) {
  if (pointer == nullptr) throw Error(ErrorCode::usage, std::string(name) + " is NULL", "a pointer");
}

eightfold::EngineOptions options_from(const eightfold_options* given) {
  eightfold::EngineOptions options;
  if (given == nullptr) return options;
  const auto set = [](std::string& option, const char* value) {
    if (value != nullptr) option = value;
  };
  set(options.backend, given->backend);
  set(options.precision, given->precision);
  set(options.variant, given->variant);
  set(options.provider, given->provider);
  set(options.public_key, given->public_key);
  options.batch = given->batch;
  options.threads = given->threads;
  options.preprocess_threads = given->preprocess_threads == 0 ? 1 : given->preprocess_threads;
  options.in_flight = given->in_flight;
  options.device = given->device;
  options.height = given->height;
  options.width = given->width;
  return options;
}

eightfold::ImageView view_of(const eightfold_image& image) {
  return {static_cast<const std::uint8_t*>(image.data),      image.width,  image.height,
          static_cast<eightfold::PixelFormat>(image.format), image.stride, image.stored_channels,
          static_cast<eightfold::PixelType>(image.type)};
}

static_assert(static_cast<int>(eightfold::DataType::boolean) == EIGHTFOLD_BOOL,
              "both enumerations run alike");

eightfold_tensor tensor_of(const eightfold::TensorSpec& spec, const void* data, size_t bytes) {
  return {
      spec.name.c_str(), static_cast<int32_t>(spec.type), spec.shape.data(), spec.shape.size(), data, bytes};
}

eightfold::TensorView tensor_view_of(const eightfold_tensor& tensor) {
  if (tensor.type < EIGHTFOLD_FLOAT32 || tensor.type > EIGHTFOLD_BOOL) {
    throw Error(ErrorCode::usage, "element type " + std::to_string(tensor.type),
                "an eightfold_data_type, 0 to 6");
  }
  require(tensor.shape, "a tensor's shape");
  if (tensor.rank == 0) throw Error(ErrorCode::usage, "a tensor of rank 0", "rows first");
  return {
      tensor.data, tensor.bytes, static_cast<eightfold::DataType>(tensor.type), {tensor.shape, tensor.rank}};
}

void add_views(eightfold_result& result) {
  for (const eightfold::Prediction& prediction : result.predictions) {
    std::vector<eightfold_mask>& masks = result.masks.emplace_back();
    for (const eightfold::InstanceMask& each : prediction.masks)
      masks.push_back({each.left, each.top, each.width, each.height, each.values.data()});
    std::vector<eightfold_picture>& pictures = result.pictures.emplace_back();
    const eightfold::Picture& picture = prediction.picture;
    if (!picture.pixels.empty()) pictures.push_back({picture.width, picture.height, picture.pixels.data()});
  }
}

const eightfold::Prediction* prediction_of(const eightfold_result* result, size_t image) {
  return result != nullptr && image < result->predictions.size() ? &result->predictions[image] : nullptr;
}

// C and C++ call the same structs by different names.
template <typename Element, typename View>
size_t part_of(const std::vector<Element>& values, const View** first) {
  static_assert(sizeof(Element) == sizeof(View));
  if (first == nullptr) return 0;
  *first = reinterpret_cast<const View*>(values.data());
  return values.size();
}

}  // namespace

const char* eightfold_version() { return EIGHTFOLD_VERSION; }
const char* eightfold_last_error() { return last_error().c_str(); }

eightfold_status eightfold_engine_load(const char* path, const eightfold_options* options,
                                       eightfold_engine** engine) {
  return guarded([&] {
    require(path, "path");
    require(engine, "engine");
    *engine = nullptr;
    eightfold::Engine loaded = eightfold::Engine::load(path, options_from(options));
    std::string description = loaded.describe();
    auto made =
        std::make_unique<eightfold_engine>(eightfold_engine{std::move(loaded), std::move(description), {}});
    for (const eightfold::TensorSpec& spec : made->engine.artifacts()[0].inputs) {
      made->inputs.push_back(tensor_of(spec, nullptr, spec.bytes()));
    }
    *engine = made.release();
  });
}

void eightfold_engine_free(eightfold_engine* engine) { delete engine; }

eightfold_status eightfold_engine_warmup(const eightfold_engine* engine, int32_t runs) {
  return guarded([&] {
    require(engine, "engine");
    engine->engine.warmup(runs);
  });
}

eightfold_status eightfold_engine_run(const eightfold_engine* engine, const eightfold_image* images,
                                      size_t count, eightfold_result** result) {
  return guarded([&] {
    require(engine, "engine");
    require(result, "result");
    *result = nullptr;
    if (count > 0) require(images, "images");
    std::vector<eightfold::ImageView> views;
    for (size_t i = 0; i < count; ++i) views.push_back(view_of(images[i]));
    auto made = std::make_unique<eightfold_result>();
    engine->engine.run(views, made->predictions);
    add_views(*made);
    *result = made.release();
  });
}

size_t eightfold_engine_inputs(const eightfold_engine* engine, const eightfold_tensor** first) {
  if (engine == nullptr || first == nullptr) return 0;
  *first = engine->inputs.data();
  return engine->inputs.size();
}

eightfold_status eightfold_engine_run_tensors(const eightfold_engine* engine, const eightfold_tensor* inputs,
                                              size_t count, eightfold_tensors** outputs) {
  return guarded([&] {
    require(engine, "engine");
    require(outputs, "outputs");
    *outputs = nullptr;
    require(inputs, "inputs");
    std::vector<eightfold::TensorView> views;
    for (size_t i = 0; i < count; ++i) views.push_back(tensor_view_of(inputs[i]));
    const std::int64_t rows = views.empty() ? 1 : views[0].shape[0];
    auto made = std::make_unique<eightfold_tensors>();
    engine->engine.run_tensors(views, static_cast<size_t>(std::max<std::int64_t>(rows, 0)), made->tensors);
    for (const eightfold::Tensor& each : made->tensors) {
      made->views.push_back(tensor_of(each.spec, each.bytes.data(), each.bytes.size()));
    }
    *outputs = made.release();
  });
}

size_t eightfold_tensors_list(const eightfold_tensors* tensors, const eightfold_tensor** first) {
  if (tensors == nullptr || first == nullptr) return 0;
  *first = tensors->views.data();
  return tensors->views.size();
}

void eightfold_tensors_free(eightfold_tensors* tensors) { delete tensors; }

const char* eightfold_engine_describe(const eightfold_engine* engine) {
  return engine == nullptr ? "" : engine->description.c_str();
}

const char* eightfold_engine_label(const eightfold_engine* engine, int32_t index) {
  if (engine == nullptr) return nullptr;
  const std::vector<std::string>& labels = engine->engine.manifest().task.labels;
  const bool named = index >= 0 && static_cast<size_t>(index) < labels.size();
  return named ? labels[static_cast<size_t>(index)].c_str() : nullptr;
}

size_t eightfold_engine_row_bytes(const eightfold_engine* engine) {
  return engine == nullptr ? 0 : engine->engine.input_row_bytes();
}

eightfold_status eightfold_engine_preprocess(const eightfold_engine* engine, const eightfold_image* image,
                                             void* tensor) {
  return guarded([&] {
    require(engine, "engine");
    require(image, "image");
    require(tensor, "tensor");
    engine->engine.preprocess({view_of(*image)}, tensor);
  });
}

void eightfold_result_free(eightfold_result* result) { delete result; }

size_t eightfold_result_count(const eightfold_result* result) {
  return result == nullptr ? 0 : result->predictions.size();
}

size_t eightfold_result_classes(const eightfold_result* result, size_t image, const eightfold_class** first) {
  const eightfold::Prediction* prediction = prediction_of(result, image);
  return prediction == nullptr ? 0 : part_of(prediction->classes, first);
}

size_t eightfold_result_detections(const eightfold_result* result, size_t image,
                                   const eightfold_detection** first) {
  const eightfold::Prediction* prediction = prediction_of(result, image);
  return prediction == nullptr ? 0 : part_of(prediction->detections, first);
}

size_t eightfold_result_segments(const eightfold_result* result, size_t image, const uint8_t** first) {
  const eightfold::Prediction* prediction = prediction_of(result, image);
  return prediction == nullptr ? 0 : part_of(prediction->segments.values, first);
}

size_t eightfold_result_alpha(const eightfold_result* result, size_t image, const float** first) {
  const eightfold::Prediction* prediction = prediction_of(result, image);
  return prediction == nullptr ? 0 : part_of(prediction->alpha.values, first);
}

size_t eightfold_result_masks(const eightfold_result* result, size_t image, const eightfold_mask** first) {
  return prediction_of(result, image) == nullptr ? 0 : part_of(result->masks[image], first);
}

size_t eightfold_result_keypoints(const eightfold_result* result, size_t image,
                                  const eightfold_keypoint** first) {
  const eightfold::Prediction* prediction = prediction_of(result, image);
  return prediction == nullptr ? 0 : part_of(prediction->keypoints, first);
}

size_t eightfold_result_corners(const eightfold_result* result, size_t image,
                                const eightfold_corners** first) {
  const eightfold::Prediction* prediction = prediction_of(result, image);
  return prediction == nullptr ? 0 : part_of(prediction->corners, first);
}

size_t eightfold_result_depth(const eightfold_result* result, size_t image, const float** first) {
  const eightfold::Prediction* prediction = prediction_of(result, image);
  return prediction == nullptr ? 0 : part_of(prediction->depth.values, first);
}

size_t eightfold_result_pictures(const eightfold_result* result, size_t image,
                                 const eightfold_picture** first) {
  return prediction_of(result, image) == nullptr ? 0 : part_of(result->pictures[image], first);
}
