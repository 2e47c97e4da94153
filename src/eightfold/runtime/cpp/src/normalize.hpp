// Purpose: pixel values to floats: a table of 256 or 65536 entries per channel, or the straight line it was
// made from where that gives the same floats, which vectorises. Thread safety: immutable after construction.
#pragma once

#include <cstdint>
#include <vector>

#include "eightfold/preprocess.hpp"

namespace eightfold::detail {

class Normalizer {
 public:
  explicit Normalizer(const Preprocess& preprocess);

  float operator()(std::size_t value, int channel) const {
    return channels_[static_cast<std::size_t>(channel)].table[value];
  }

  // The three planes of pixels of three bytes; `order[c]` is the byte that channel c is.
  void planes(const std::uint8_t* pixels, const int* order, int count, float* const* out) const;

 private:
  struct Channel {
    std::vector<float> table;
    double factor;
    double offset;
  };

  std::vector<Channel> channels_;
  bool linear_ = true;  // whether float(value * factor + offset) is the table, entry by entry
};

}  // namespace eightfold::detail
