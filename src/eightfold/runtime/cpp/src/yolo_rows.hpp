// Purpose: heads whose output has one row per location: a decoded box, class probabilities, and for some
// further values behind the classes.
#pragma once

#include "detector.hpp"

namespace eightfold::detail {

// Where the rows are and what they hold besides box and classes.
struct RowShape {
  std::size_t output = 0;  // among the model's
  std::size_t further = 0;
};

class YoloRows : public Head {
 public:
  YoloRows(const JsonNode& options, const DecoderInputs& inputs, RowShape shape);

  void list(Row row, const DetectorOptions& options, DecodeScratch& scratch) const override;
  Box box(Row row, std::int64_t location) const override;

 protected:
  // Value `index` of those behind the classes.
  float further(Row row, std::int64_t location, std::size_t index) const {
    return value(row, static_cast<std::size_t>(location), channels_ - shape_.further + index);
  }
  std::size_t further_count() const { return shape_.further; }
  // Tensor pixels per unit of a coordinate.
  double unit_x() const { return unit_x_; }
  double unit_y() const { return unit_y_; }

 private:
  std::size_t first_class() const { return objectness_ ? 5 : 4; }
  std::size_t classes() const { return channels_ - first_class() - shape_.further; }
  std::size_t channel_step() const { return channels_last_ ? 1 : locations_; }
  std::size_t location_step() const { return channels_last_ ? channels_ : 1; }
  float value(Row row, std::size_t location, std::size_t channel) const {
    return row[shape_.output][location * location_step() + channel * channel_step()];
  }

  RowShape shape_;
  bool channels_last_ = false;
  bool objectness_ = false;
  float unit_x_ = 1;
  float unit_y_ = 1;
  std::size_t channels_ = 0;
  std::size_t locations_ = 0;
};

// Throws Error (bundle) where the model has several.
void require_one_output(const DecoderInputs& inputs, const char* decoder);
// The only output of that many axes; throws Error (bundle) where there is none, or more than one.
std::size_t only_output_of_rank(const DecoderInputs& inputs, std::size_t rank, const std::string& wanted);

}  // namespace eightfold::detail
