// `yolo-oriented`: an angle in radians behind the classes, suppression by the overlap of Gaussians.
#include <algorithm>
#include <cmath>

#include "instances.hpp"
#include "oriented_boxes.hpp"
#include "yolo_rows.hpp"

namespace eightfold::detail {
namespace {

constexpr double kEpsilon = 1e-7;
constexpr double kFarApart = 100;

struct Covariance {
  double xx;
  double yy;
  double xy;
};

Covariance covariance_of(const OrientedBox& box) {
  const double wide = box.width * box.width / 12;
  const double high = box.height * box.height / 12;
  const double cosine = std::cos(box.angle);
  const double sine = std::sin(box.angle);
  return {wide * cosine * cosine + high * sine * sine, wide * sine * sine + high * cosine * cosine,
          (wide - high) * cosine * sine};
}

class YoloOriented : public YoloRows {
 public:
  using YoloRows::YoloRows;

  void suppress_boxes(Row row, const DetectorOptions& options, std::vector<ScoredBox>& boxes) const override {
    if (!options.nms) return boxes.resize(std::min(boxes.size(), options.max_detections));
    std::vector<OrientedBox> kept;
    std::size_t count = 0;
    for (std::size_t i = 0; i < boxes.size() && count < options.max_detections; ++i) {
      const ScoredBox candidate = boxes[i];
      const OrientedBox turned = oriented(row, candidate);
      bool stays = true;
      for (std::size_t other = 0; other < count && stays; ++other) {
        if (!options.agnostic && boxes[other].label != candidate.label) continue;
        stays = !(overlap(kept[other], turned) > options.iou_threshold);
      }
      if (!stays) continue;
      kept.push_back(turned);
      boxes[count++] = candidate;
    }
    boxes.resize(count);
  }

  void add_parts(Row row, const Placement& placement, DecodeScratch& scratch,
                 Prediction& prediction) const override {
    prediction.corners.clear();
    for (std::size_t i = 0; i < scratch.boxes.size(); ++i) {
      prediction.corners.push_back(
          to_image(corners_of(oriented(row, scratch.boxes[i])), placement, prediction.detections[i]));
    }
  }

 private:
  OrientedBox oriented(Row row, const ScoredBox& found) const {
    const Box& box = found.box;
    const double x1 = box.x1;
    const double y1 = box.y1;
    return {(x1 + box.x2) / 2, (y1 + box.y2) / 2, box.x2 - x1, box.y2 - y1, further(row, found.location, 0)};
  }

  // Sets the corners of the upright box as well.
  static Corners to_image(const OrientedCorners& corners, const Placement& placement, Detection& upright) {
    const double scale_x = static_cast<double>(placement.resized.width) / placement.source.width;
    const double scale_y = static_cast<double>(placement.resized.height) / placement.source.height;
    Corners result;
    std::array<double, 4> xs;
    std::array<double, 4> ys;
    for (std::size_t i = 0; i < corners.size(); ++i) {
      xs[i] = (corners[i].x - placement.left) / scale_x;
      ys[i] = (corners[i].y - placement.top) / scale_y;
      result[i] = {static_cast<float>(xs[i]), static_cast<float>(ys[i])};
    }
    const auto cut = [](double value, int side) {
      return static_cast<float>(std::clamp<double>(value, 0, side));
    };
    const auto [left, right] = std::minmax_element(xs.begin(), xs.end());
    const auto [top, bottom] = std::minmax_element(ys.begin(), ys.end());
    upright.x1 = cut(*left, placement.source.width);
    upright.y1 = cut(*top, placement.source.height);
    upright.x2 = cut(*right, placement.source.width);
    upright.y2 = cut(*bottom, placement.source.height);
    return result;
  }
};

}  // namespace

double overlap(const OrientedBox& first, const OrientedBox& second) {
  const Covariance one = covariance_of(first);
  const Covariance other = covariance_of(second);
  const double a = one.xx + other.xx;
  const double b = one.yy + other.yy;
  const double c = one.xy + other.xy;
  const double x = first.x - second.x;
  const double y = first.y - second.y;
  const double determinant = a * b - c * c;
  const double shape =
      (a * y * y + b * x * x) / (determinant + kEpsilon) / 4 - (c * x * y) / (determinant + kEpsilon) / 2;
  const double sizes = std::sqrt(std::max(one.xx * one.yy - one.xy * one.xy, 0.0) *
                                 std::max(other.xx * other.yy - other.xy * other.xy, 0.0));
  const double distance =
      std::clamp(shape + std::log(determinant / (4 * sizes + kEpsilon) + kEpsilon) / 2, kEpsilon, kFarApart);
  return 1 - std::sqrt(1 - std::exp(-distance) + kEpsilon);
}

OrientedCorners corners_of(const OrientedBox& box) {
  const double cosine = std::cos(box.angle);
  const double sine = std::sin(box.angle);
  constexpr std::array<std::array<double, 2>, 4> kSigns = {{{1, 1}, {1, -1}, {-1, -1}, {-1, 1}}};
  OrientedCorners corners;
  for (std::size_t i = 0; i < kSigns.size(); ++i) {
    const double across = kSigns[i][0] * box.width / 2;
    const double down = kSigns[i][1] * box.height / 2;
    corners[i] = {cosine * across - sine * down + box.x, sine * across + cosine * down + box.y};
  }
  return corners;
}

std::unique_ptr<Decoder> make_yolo_oriented(const JsonNode& options, const DecoderInputs& inputs) {
  allow_detector_keys(options, {"channels_last", "objectness", "normalized"});
  const RowShape shape = {only_output_of_rank(inputs, 3, "(B, values, N)"), 1};
  return make_detector(std::make_unique<YoloOriented>(options, inputs, shape),
                       detector_options_from(options, {}));
}

}  // namespace eightfold::detail
