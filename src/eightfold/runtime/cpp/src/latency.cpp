#include "latency.hpp"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "json_reader.hpp"

namespace eightfold::detail {
namespace {

bool has_value(const JsonNode& node, const char* key) { return node.has(key) && !node.at(key).is_null(); }

// Where a fact may be absent or null it is empty, as describe_machine leaves it.
std::string text_or_empty(const JsonNode& node, const char* key) {
  return has_value(node, key) ? node.at(key).string() : "";
}

Machine machine_from(const JsonNode& device) {
  Machine machine;
  const JsonNode cpu = device.at("cpu");
  machine.cpu = cpu.at("model").string();
  if (has_value(cpu, "cores")) machine.cores = static_cast<int>(cpu.at("cores").integer(0, 1 << 20));
  if (has_value(cpu, "quota_cores")) machine.quota_cores = cpu.at("quota_cores").number();
  machine.board = text_or_empty(device, "board");
  if (device.has("gpus")) {
    for (const JsonNode& gpu : device.at("gpus").items()) machine.gpus.push_back(gpu.at("name").string());
  }
  return machine;
}

// Of a call: the median of the starts' medians, which a stall does not move; the mean where they are not told
// apart.
double usual_ms(const JsonNode& row) {
  std::vector<double> starts;
  if (has_value(row, "start_p50_ms")) {
    starts = row.at("start_p50_ms").each<double>([](const JsonNode& each) { return each.number(); });
  }
  if (starts.empty()) return row.at("timing").at("mean_ms").number();
  std::sort(starts.begin(), starts.end());
  const std::size_t middle = starts.size() / 2;
  return starts.size() % 2 ? starts[middle] : (starts[middle - 1] + starts[middle]) / 2;
}

LatencyRow row_from(const JsonNode& node) {
  constexpr std::int64_t kMostImages = std::int64_t{1} << 31;
  const auto batch = static_cast<double>(node.at("batch").integer(1, kMostImages));
  return {text_or_empty(node, "artifact"), node.at("backend").string(), usual_ms(node) / batch};
}

}  // namespace

LatencyTable latency_from_json(const std::string& text, const std::string& source) {
  const nlohmann::json document = parse_json(text, source);
  const JsonNode root(document, source);
  if (root.at("kind").string() != "latency table") {
    root.at("kind").fail("'" + root.at("kind").string() + "'", "latency table");
  }
  root.at("schema").integer(1, 1);
  return {machine_from(root.at("device")), root.at("rows").each<LatencyRow>(row_from)};
}

std::optional<LatencyTable> table_for_here(const Bundle& bundle) {
  const auto document = bundle.manifest().documents.find("latency");
  if (document == bundle.manifest().documents.end()) return std::nullopt;
  const std::vector<std::uint8_t> bytes = bundle.read(document->second);
  LatencyTable table =
      latency_from_json({bytes.begin(), bytes.end()}, bundle.path() + ": " + document->second);
  if (!alike(table.machine, describe_machine())) return std::nullopt;
  return table;
}

}  // namespace eightfold::detail
