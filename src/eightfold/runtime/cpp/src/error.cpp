#include "eightfold/error.hpp"

namespace eightfold {
namespace {

// How many bytes the letter at `at` has in UTF-8 (RFC 3629, section 4); 0 where there is none.
std::size_t letter_bytes(const std::string& text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(i < text.size() ? text[i] : 0); };
  const unsigned char first = byte(at);
  if (first < 0x80) return 1;
  const std::size_t count = first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
  for (std::size_t i = 1; i < count; ++i) {
    if ((byte(at + i) & 0xc0U) != 0x80) return 0;
  }
  const unsigned char second = byte(at + 1);
  const bool overlong = (first == 0xe0 && second < 0xa0) || (first == 0xf0 && second < 0x90);
  const bool beyond = (first == 0xed && second > 0x9f) || (first == 0xf4 && second > 0x8f);
  return overlong || beyond ? 0 : count;
}

// Back ends quote what they were given, and cut it off, so that a message need not be text.
void make_text(std::string& line) {
  for (std::size_t at = 0; at < line.size();) {
    const std::size_t count = letter_bytes(line, at);
    if (count == 0) line[at] = '?';
    at += count == 0 ? 1 : count;
  }
}

std::string one_line(const std::string& seen, const std::string& allowed, const std::string& remedy) {
  std::string line = seen;
  if (!allowed.empty()) line += "; allowed: " + allowed;
  if (!remedy.empty()) line += "; " + remedy;
  for (char& character : line) {
    if (character == '\n' || character == '\r') character = ' ';
  }
  make_text(line);
  return line;
}

}  // namespace

Error::Error(ErrorCode code, const std::string& seen, const std::string& allowed, const std::string& remedy)
    : std::runtime_error(one_line(seen, allowed, remedy)), code_(code) {}

}  // namespace eightfold
