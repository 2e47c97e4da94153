#include "device.hpp"

#include <sys/utsname.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "eightfold/machine.hpp"

namespace programs {
namespace {

using nlohmann::json;

// Device-tree strings end in a NUL, other files in a line break.
std::string text_of(const std::string& path) {
  std::ifstream file(path);
  std::stringstream content;
  content << file.rdbuf();
  std::string text = content.str();
  while (!text.empty() && (text.back() == '\0' || text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

// The value of "key : value" or "key=value" in a file of such lines.
std::string field(const std::string& path, const std::string& key, char separator) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.compare(0, key.size(), key) != 0) continue;
    const std::size_t value = line.find(separator);
    if (value == std::string::npos) continue;
    const std::size_t first = line.find_first_not_of(" \t\"", value + 1);
    const std::size_t last = line.find_last_not_of(" \t\"");
    if (first != std::string::npos) return line.substr(first, last - first + 1);
  }
  return {};
}

json temperatures() {
  json found = json::object();
  for (int zone = 0; zone < 64; ++zone) {
    const std::string path = "/sys/class/thermal/thermal_zone" + std::to_string(zone);
    const std::string millidegrees = text_of(path + "/temp");
    // Switched-off zones of older boards read as -256 degrees.
    const double degrees = std::strtod(millidegrees.c_str(), nullptr) / 1000;
    if (millidegrees.empty() || degrees < -200) continue;
    found[text_of(path + "/type")] = degrees;
  }
  return found;
}

}  // namespace

json describe_device() {
  struct utsname system = {};
  ::uname(&system);
  const eightfold::Machine machine = eightfold::describe_machine();
  json device = {{"kind", "device"}, {"schema", 1}, {"state", read_state()}};
  device["cpu"] = {{"model", machine.cpu}, {"architecture", system.machine}};
  if (machine.cores > 0) device["cpu"]["cores"] = machine.cores;
  if (machine.quota_cores > 0) device["cpu"]["quota_cores"] = machine.quota_cores;
  const std::string os = field("/etc/os-release", "PRETTY_NAME", '=');
  device["os"] = os.empty() ? system.sysname : os;
  device["kernel"] = system.release;
  if (!machine.board.empty()) device["board"] = machine.board;
  device["gpus"] = json::array();
  for (const std::string& gpu : machine.gpus) device["gpus"].push_back({{"name", gpu}});
  device["memory_bytes"] = static_cast<std::int64_t>(::sysconf(_SC_PHYS_PAGES)) * ::sysconf(_SC_PAGESIZE);
  return device;
}

json read_state() {
  json state = {{"temperatures_c", temperatures()}};
  const std::string load = text_of("/proc/loadavg");
  if (!load.empty()) state["load_1min"] = std::strtod(load.c_str(), nullptr);
  return state;
}

}  // namespace programs
