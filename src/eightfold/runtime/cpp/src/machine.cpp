#include "eightfold/machine.hpp"

#include <dirent.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <utility>

namespace eightfold {
namespace {

// Without blanks around it, and without the NUL that ends strings of the device tree.
std::string stripped(const std::string& text) {
  const std::string around(" \t\r\n\0", 5);
  const std::size_t first = text.find_first_not_of(around);
  return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(around) - first + 1);
}

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream content;
  content << file.rdbuf();
  return stripped(content.str());
}

// 0 where there is none.
double number_of(const std::string& path) { return std::strtod(text_of(path).c_str(), nullptr); }

// The values of all lines "key : value".
std::vector<std::string> fields(const std::string& text, const std::string& key) {
  std::vector<std::string> values;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t colon = line.find(':');
    if (colon != std::string::npos && stripped(line.substr(0, colon)) == key) {
      values.push_back(stripped(line.substr(colon + 1)));
    }
  }
  return values;
}

std::string first_of(const std::vector<std::string>& values) { return values.empty() ? "" : values[0]; }

std::string with_single_blanks(const std::string& text) {
  std::istringstream words(text);
  std::string result;
  for (std::string word; words >> word;) result += (result.empty() ? "" : " ") + word;
  return result;
}

// Arm's registers name no model: (implementer, part), from the kernel's arch/arm64/include/asm/cputype.h. The
// same list as in device_cpu.py.
std::string arm_core(const std::string& implementer, const std::string& part) {
  static const std::map<std::pair<std::string, std::string>, std::string> names = {
      {{"0x41", "0xd03"}, "Cortex-A53"},  {{"0x41", "0xd05"}, "Cortex-A55"},
      {{"0x41", "0xd07"}, "Cortex-A57"},  {{"0x41", "0xd08"}, "Cortex-A72"},
      {{"0x41", "0xd0b"}, "Cortex-A76"},  {{"0x41", "0xd0c"}, "Neoverse-N1"},
      {{"0x41", "0xd40"}, "Neoverse-V1"}, {{"0x41", "0xd42"}, "Cortex-A78AE"},
      {{"0x41", "0xd4f"}, "Neoverse-V2"}, {{"0x41", "0xd83"}, "Neoverse-V3AE"},
      {{"0x4e", "0x003"}, "Denver 2"},    {{"0x4e", "0x004"}, "Carmel"}};
  const auto known = names.find({implementer, part});
  return known != names.end() ? known->second : "Arm " + implementer + ":" + part;
}

// "4 x Denver 2 + 4 x Cortex-A57", in the order in which the kinds first appear.
std::string arm_cores(const std::string& info) {
  const std::vector<std::string> implementers = fields(info, "CPU implementer");
  const std::vector<std::string> parts = fields(info, "CPU part");
  std::vector<std::pair<std::string, int>> kinds;
  for (std::size_t i = 0; i < std::min(implementers.size(), parts.size()); ++i) {
    const std::string name = arm_core(implementers[i], parts[i]);
    const auto known =
        std::find_if(kinds.begin(), kinds.end(), [&](const auto& kind) { return kind.first == name; });
    if (known == kinds.end()) {
      kinds.emplace_back(name, 1);
    } else {
      ++known->second;
    }
  }
  std::string text;
  for (const auto& [name, count] : kinds) {
    text += (text.empty() ? "" : " + ") + std::to_string(count) + " x " + name;
  }
  return text;
}

std::string cpu_model(const std::string& info) {
  std::string name = first_of(fields(info, "model name"));
  if (name.empty()) name = first_of(fields(info, "Model name"));
  if (!name.empty() && name.compare(0, 5, "ARMv8") != 0) return with_single_blanks(name);
  std::string arm = arm_cores(info);
  if (!arm.empty()) return arm;
  return name.empty() ? "unknown processor" : name;
}

// "0-3,6" is five cores.
int cores_in(const std::string& list) {
  int count = 0;
  std::istringstream spans(list);
  for (std::string span; std::getline(spans, span, ',');) {
    const std::size_t dash = span.find('-');
    const long first = std::strtol(span.c_str(), nullptr, 10);
    const long last = dash == std::string::npos ? first : std::strtol(span.c_str() + dash + 1, nullptr, 10);
    count += static_cast<int>(last - first) + 1;
  }
  return count;
}

// The limit of the control group: cpu.max in version 2 ("150000 100000", "max 100000"), quota and period in
// version 1.
double quota_cores(const std::string& root) {
  double quota = 0;
  double period = 0;
  std::istringstream limit(text_of(root + "/sys/fs/cgroup/cpu.max"));
  if (limit >> quota >> period && period > 0) return quota / period;
  quota = number_of(root + "/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
  period = number_of(root + "/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  return quota > 0 && period > 0 ? quota / period : 0;
}

std::vector<std::string> entries(const std::string& folder) {
  struct Close {
    void operator()(DIR* directory) const { ::closedir(directory); }
  };
  const std::unique_ptr<DIR, Close> directory(::opendir(folder.c_str()));
  std::vector<std::string> names;
  while (directory) {
    const dirent* entry = ::readdir(directory.get());
    if (entry == nullptr) break;
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  }
  std::sort(names.begin(), names.end());  // by their place on the bus, as nvidia-smi lists them
  return names;
}

std::vector<std::string> gpu_names(const std::string& folder) {
  std::vector<std::string> names;
  for (const std::string& place : entries(folder)) {
    const std::string name = first_of(fields(text_of(folder + "/" + place + "/information"), "Model"));
    if (!name.empty()) names.push_back(name);
  }
  return names;
}

}  // namespace

Machine describe_machine(const std::string& root) {
  Machine machine;
  machine.cpu = cpu_model(text_of(root + "/proc/cpuinfo"));
  machine.cores = cores_in(first_of(fields(text_of(root + "/proc/self/status"), "Cpus_allowed_list")));
  machine.quota_cores = quota_cores(root);
  machine.board = text_of(root + "/proc/device-tree/model");
  machine.gpus = gpu_names(root + "/proc/driver/nvidia/gpus");
  return machine;
}

bool alike(const Machine& a, const Machine& b) {
  return a.cpu == b.cpu && a.cores == b.cores && a.quota_cores == b.quota_cores && a.board == b.board &&
         (!a.board.empty() || a.gpus == b.gpus);
}

}  // namespace eightfold
