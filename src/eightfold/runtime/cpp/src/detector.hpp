// Purpose: what all detectors share: threshold, limits, suppression, and the way back to the image.
#pragma once

#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "candidates.hpp"
#include "decode_scratch.hpp"
#include "decoder.hpp"
#include "json_reader.hpp"
#include "suppress.hpp"

namespace eightfold::detail {

struct DetectorOptions {
  float score_threshold = 0.25F;
  float iou_threshold = 0.45F;
  std::size_t max_candidates = 3000;
  std::size_t max_detections = 300;
  bool multi_label = false;
  bool agnostic = false;
  bool nms = true;
  float soft_sigma = 0;
};

// Reads the shared options over the defaults given; heads read their own.
DetectorOptions detector_options_from(const JsonNode& options, DetectorOptions defaults);
// The names of the shared options and those of a head, for the check that there are no others.
void allow_detector_keys(const JsonNode& options, std::initializer_list<const char*> own);

// The outputs of one image, as floats.
using Row = span<const span<const float>>;

// What tells one detector from another. A head may be shared between threads.
class Head {
 public:
  Head() = default;
  Head(const Head&) = delete;
  Head& operator=(const Head&) = delete;
  virtual ~Head() = default;

  // Appends to scratch.candidates those above the score threshold, with any limit by group applied.
  virtual void list(Row row, const DetectorOptions& options, DecodeScratch& scratch) const = 0;
  // In tensor pixels.
  virtual Box box(Row row, std::int64_t location) const = 0;
  // Keeps of boxes that are given best first those that stay.
  virtual void suppress_boxes(Row row, const DetectorOptions& options, std::vector<ScoredBox>& boxes) const;
  // Adds to a prediction, whose detections are complete, what the head has beyond boxes.
  virtual void add_parts(Row row, const Placement& placement, DecodeScratch& scratch,
                         Prediction& prediction) const;
};

std::unique_ptr<Decoder> make_detector(std::unique_ptr<Head> head, const DetectorOptions& options);

[[noreturn]] void wrong_shape(const TensorSpec& spec, const std::string& wanted);

}  // namespace eightfold::detail
