#include "bundle_names.hpp"

#include <algorithm>

#include "eightfold/error.hpp"

namespace eightfold::detail {
namespace {

constexpr std::size_t kLongestPartBytes = 255;
constexpr std::size_t kLongestNameBytes = 1024;

bool is_safe_part(const std::string& part) {
  return !part.empty() && part != "." && part != ".." && part.size() <= kLongestPartBytes;
}

bool is_control(char letter) {
  const auto byte = static_cast<unsigned char>(letter);
  return byte < 0x20 || byte == 0x7f;
}

bool is_safe(const std::string& name) {
  if (name.size() > kLongestNameBytes || name.find('\\') != std::string::npos) return false;
  if (std::any_of(name.begin(), name.end(), is_control)) return false;
  if (name.substr(0, name.find('/')).find(':') != std::string::npos) return false;  // a drive of Windows
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('/', begin), name.size());
    if (!is_safe_part(name.substr(begin, end - begin))) return false;
    begin = end + 1;
  }
  return true;
}

// Of ASCII letters alone, so that every language agrees.
std::string lower(std::string name) {
  for (char& letter : name) {
    if (letter >= 'A' && letter <= 'Z') letter = static_cast<char>(letter - 'A' + 'a');
  }
  return name;
}

[[noreturn]] void refuse(const std::string& bundle, const std::string& name, const std::string& allowed) {
  constexpr std::size_t longest_shown = 200;
  std::size_t end = std::min(name.size(), longest_shown);
  while (end < name.size() && (static_cast<unsigned char>(name[end]) & 0xc0U) == 0x80)
    --end;  // whole letters
  throw Error(ErrorCode::bundle, bundle + ": the manifest names the file '" + name.substr(0, end) + "'",
              allowed, "do not use this bundle; make it again");
}

}  // namespace

void check_names(const std::map<std::string, FileEntry>& files, const std::string& bundle) {
  std::map<std::string, std::string> seen;
  for (const auto& [name, entry] : files) {
    if (!is_safe(name)) refuse(bundle, name, "relative paths with '/' that stay inside the bundle");
    for (std::size_t end = name.rfind('/'); end != std::string::npos; end = name.rfind('/', end - 1)) {
      if (files.count(name.substr(0, end)) > 0)
        refuse(bundle, name, "names that are not below a file ('" + name.substr(0, end) + "')");
    }
    const auto [twin, is_new] = seen.emplace(lower(name), name);
    if (!is_new) refuse(bundle, name, "names that differ in more than capitals ('" + twin->second + "')");
  }
}

}  // namespace eightfold::detail
