// Purpose: the buffers of decoding, which one thread reuses from image to image.
#pragma once

#include <vector>

#include "candidates.hpp"
#include "decoder.hpp"
#include "suppress.hpp"

namespace eightfold::detail {

struct DecodeScratch {
  std::vector<std::vector<float>> converted;  // per output, where it is not of floats
  std::vector<span<const float>> row;         // the outputs of one image
  std::vector<float> values;
  std::vector<std::size_t> order;
  BestClasses best;
  std::vector<Found> found;
  std::vector<Candidate> candidates;
  std::vector<ScoredBox> boxes;
};

}  // namespace eightfold::detail
