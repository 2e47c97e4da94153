#include "eightfold/error.hpp"

namespace eightfold {
namespace {

std::string one_line(const std::string& seen, const std::string& allowed, const std::string& remedy) {
  std::string line = seen;
  if (!allowed.empty()) line += "; allowed: " + allowed;
  if (!remedy.empty()) line += "; " + remedy;
  for (char& character : line) {
    if (character == '\n' || character == '\r') character = ' ';
  }
  return line;
}

}  // namespace

Error::Error(ErrorCode code, const std::string& seen, const std::string& allowed, const std::string& remedy)
    : std::runtime_error(one_line(seen, allowed, remedy)), code_(code) {}

}  // namespace eightfold
