#include "output.hpp"

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

json detections(const Engine& engine, const Prediction& prediction) {
  json objects = json::array();
  for (const auto& each : prediction.detections) {
    objects.push_back({{"box", {each.x1, each.y1, each.x2, each.y2}},
                       {"score", each.score},
                       {"class", each.label},
                       {"label", engine.label(each.label)}});
  }
  return {{"kind", "detections"}, {"objects", objects}};
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
  }
  return line.empty() ? "nothing found" : line;
}

}  // namespace programs
