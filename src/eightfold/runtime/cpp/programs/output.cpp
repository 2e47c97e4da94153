#include "output.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

namespace programs {
namespace {

using eightfold::Engine;
using eightfold::Prediction;
using nlohmann::json;

std::map<std::string, double> shares(const Engine& engine, const Prediction& prediction) {
  std::array<std::size_t, 256> counts = {};
  for (const std::uint8_t label : prediction.segments.values) ++counts[label];
  std::map<std::string, double> result;
  for (int label = 0; label < 255; ++label) {
    const std::size_t count = counts[static_cast<std::size_t>(label)];
    if (count == 0) continue;
    result[engine.label(label)] =
        static_cast<double>(count) / static_cast<double>(prediction.segments.values.size());
  }
  return result;
}

double coverage(const Prediction& prediction) {
  const auto& alpha = prediction.alpha.values;
  return std::accumulate(alpha.begin(), alpha.end(), 0.0) / static_cast<double>(alpha.size());
}

std::string percent(double share) {
  std::array<char, 32> text;
  std::snprintf(text.data(), text.size(), "%.1f%%", 100 * share);
  return text.data();
}

json classification(const Engine& engine, const Prediction& prediction) {
  json top = json::array();
  for (const auto& each : prediction.classes) {
    top.push_back({{"index", each.label}, {"label", engine.label(each.label)}, {"probability", each.score}});
  }
  return {{"kind", "classification"}, {"top", top}};
}

// Lengths of the runs of equal values, row by row; the first is of zeros, and may be 0.
json runs_of(const std::vector<std::uint8_t>& values) {
  json runs = json::array();
  std::size_t start = 0;
  std::uint8_t value = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (values[i] == value) continue;
    runs.push_back(i - start);
    start = i;
    value = values[i];
  }
  runs.push_back(values.size() - start);
  return runs;
}

// What object `index` has besides its box.
void add_parts(const Prediction& prediction, std::size_t index, json& object) {
  if (!prediction.masks.empty()) {
    const eightfold::InstanceMask& mask = prediction.masks[index];
    object["mask"] = {{"origin", {mask.left, mask.top}},
                      {"size", {mask.height, mask.width}},
                      {"runs", runs_of(mask.values)}};
  }
  if (!prediction.keypoints.empty()) {
    const std::size_t count = prediction.keypoints.size() / prediction.detections.size();
    json points = json::array();
    for (std::size_t i = index * count; i < (index + 1) * count; ++i) {
      const eightfold::Keypoint& point = prediction.keypoints[i];
      points.push_back({point.x, point.y, point.score});
    }
    object["keypoints"] = points;
  }
  if (!prediction.corners.empty()) {
    json corners = json::array();
    for (const eightfold::Point& point : prediction.corners[index]) corners.push_back({point.x, point.y});
    object["corners"] = corners;
  }
}

std::string kind_of_objects(const std::string& decoder) {
  if (decoder == "yolo-masks" || decoder == "rcnn-masks") return "instance masks";
  if (decoder == "yolo-keypoints") return "keypoints";
  return decoder == "yolo-oriented" ? "oriented boxes" : "detections";
}

json detections(const Engine& engine, const Prediction& prediction) {
  json objects = json::array();
  for (const auto& each : prediction.detections) {
    objects.push_back({{"box", {each.x1, each.y1, each.x2, each.y2}},
                       {"score", each.score},
                       {"class", each.label},
                       {"label", engine.label(each.label)}});
    add_parts(prediction, objects.size() - 1, objects.back());
  }
  return {{"kind", kind_of_objects(engine.manifest().task.decode)}, {"objects", objects}};
}

json depth(const Prediction& prediction) {
  const std::vector<float>& values = prediction.depth.values;
  const auto [least, largest] = std::minmax_element(values.begin(), values.end());
  return {{"kind", "depth"},
          {"size", {prediction.depth.height, prediction.depth.width}},
          {"least", *least},
          {"largest", *largest}};
}

json picture(const Prediction& prediction) {
  const eightfold::Picture& made = prediction.picture;
  return {{"kind", "picture"},
          {"size", {made.height, made.width}},
          {"factor", {made.vertical_factor, made.horizontal_factor}}};
}

std::string number(float value) {
  std::array<char, 32> text;
  std::snprintf(text.data(), text.size(), "%.3g", static_cast<double>(value));
  return text.data();
}

}  // namespace

json json_of(const Engine& engine, const Prediction& prediction) {
  const std::string& kind = engine.manifest().task.kind;
  if (kind == "classify") return classification(engine, prediction);
  if (kind == "detect") return detections(engine, prediction);
  if (kind == "segment") {
    return {{"kind", "segmentation"},
            {"size", {prediction.segments.height, prediction.segments.width}},
            {"shares", shares(engine, prediction)}};
  }
  if (kind == "matte") {
    return {{"kind", "matte"},
            {"size", {prediction.alpha.height, prediction.alpha.width}},
            {"coverage", coverage(prediction)}};
  }
  if (!prediction.depth.values.empty()) return depth(prediction);
  if (!prediction.picture.pixels.empty()) return picture(prediction);
  return {{"kind", "tensors"}};
}

std::string line_of(const Engine& engine, const Prediction& prediction) {
  const std::string& kind = engine.manifest().task.kind;
  std::string line;
  const auto add = [&](const std::string& part) { line += (line.empty() ? "" : ", ") + part; };
  if (kind == "classify") {
    for (const auto& each : prediction.classes) add(engine.label(each.label) + " " + percent(each.score));
  } else if (kind == "detect") {
    std::map<int, int> counts;
    for (const auto& each : prediction.detections) ++counts[each.label];
    for (const auto& [label, count] : counts) add(std::to_string(count) + " " + engine.label(label));
  } else if (kind == "segment") {
    for (const auto& [label, share] : shares(engine, prediction)) add(label + " " + percent(share));
  } else if (kind == "matte") {
    add("foreground covers " + percent(coverage(prediction)));
  } else if (!prediction.depth.values.empty()) {
    const auto [least, largest] =
        std::minmax_element(prediction.depth.values.begin(), prediction.depth.values.end());
    add("values from " + number(*least) + " to " + number(*largest));
  } else if (!prediction.picture.pixels.empty()) {
    add("a picture of " + std::to_string(prediction.picture.width) + "x" +
        std::to_string(prediction.picture.height));
  }
  return line.empty() ? "nothing found" : line;
}

}  // namespace programs
