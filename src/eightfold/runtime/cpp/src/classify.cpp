#include "classify.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "activations.hpp"
#include "decode_scratch.hpp"
#include "eightfold/error.hpp"

namespace eightfold::detail {
namespace {

enum class Activation { softmax, sigmoid, none };

void apply(Activation activation, span<const float> logits, std::vector<float>& out) {
  out.assign(logits.begin(), logits.end());
  if (activation == Activation::sigmoid) {
    for (float& value : out) value = sigmoid(value);
  }
  if (activation == Activation::softmax) softmax(out.data(), out.size());
}

class TopK : public Decoder {
 public:
  TopK(std::size_t k, Activation activation) : k_(k), activation_(activation) {}

  void decode(span<const Output> outputs, std::size_t row, const Placement&, DecodeScratch& scratch,
              Prediction& prediction) const override {
    apply(activation_, row_as_floats(outputs[0], 0, row, scratch), scratch.values);
    const std::vector<float>& values = scratch.values;
    std::vector<std::size_t>& order = scratch.order;
    order.resize(values.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    const std::size_t count = std::min(k_, order.size());
    // Equal scores rank by index; what is not a number comes last.
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count), order.end(),
                      [&](std::size_t a, std::size_t b) {
                        if (std::isnan(values[a]) || std::isnan(values[b])) {
                          return std::isnan(values[a]) == std::isnan(values[b]) ? a < b
                                                                                : std::isnan(values[b]);
                        }
                        return values[a] != values[b] ? values[a] > values[b] : a < b;
                      });
    prediction.classes.clear();
    for (std::size_t i = 0; i < count; ++i)
      prediction.classes.push_back({static_cast<int>(order[i]), values[order[i]]});
  }

 private:
  std::size_t k_;
  Activation activation_;
};

}  // namespace

std::unique_ptr<Decoder> make_classifier(const JsonNode& options, const DecoderInputs& inputs) {
  if (inputs.outputs.size() != 1 || inputs.outputs[0].elements() == 0) {
    throw Error(ErrorCode::bundle, "the model has " + std::to_string(inputs.outputs.size()) + " outputs",
                "one, (B, classes), for 'classify'", "choose another decoder");
  }
  options.allow_keys({"k", "activation"});
  const auto k = options.has("k") ? options.at("k").integer(1, 1 << 24) : 5;
  auto activation = Activation::softmax;
  if (options.has("activation")) {
    activation = options.at("activation")
                     .one_of<Activation>({{"softmax", Activation::softmax},
                                          {"sigmoid", Activation::sigmoid},
                                          {"none", Activation::none}});
  }
  return std::make_unique<TopK>(static_cast<std::size_t>(k), activation);
}

}  // namespace eightfold::detail
