// Purpose: heads whose rows are final: x1, y1, x2, y2, score, class (Wang et al., YOLOv10, NeurIPS 2024).
#pragma once

#include "detector.hpp"

namespace eightfold::detail {

class EndToEnd : public Head {
 public:
  // `output` is that of the rows among the model's.
  EndToEnd(const DecoderInputs& inputs, std::size_t output);

  void list(Row row, const DetectorOptions& options, DecodeScratch& scratch) const override;
  Box box(Row row, std::int64_t location) const override;

  static constexpr std::int64_t kValues = 6;

 private:
  std::size_t output_;
};

// The shared options; there is no suppression whatever they say.
DetectorOptions end_to_end_options_from(const JsonNode& options);

}  // namespace eightfold::detail
