#include "arguments.hpp"

#include <cstdio>
#include <cstdlib>
#include <exception>

#include "eightfold/error.hpp"

namespace programs {

using eightfold::Error;
using eightfold::ErrorCode;

namespace {

// 0 where it is none.
int side_from(const std::string& digits) {
  if (digits.empty() || digits.size() > 5 || digits.find_first_not_of("0123456789") != std::string::npos)
    return 0;
  return std::stoi(digits);
}

}  // namespace

Arguments::Arguments(int count, const char* const* words, const std::set<std::string>& valued,
                     const std::set<std::string>& flags) {
  for (int i = 1; i < count; ++i) {
    const std::string word = words[i];
    if (word.size() < 2 || word[0] != '-') {
      positional_.push_back(word);
    } else if (flags.count(word) > 0) {
      values_[word] = "";
    } else if (valued.count(word) > 0 && i + 1 < count) {
      values_[word] = words[++i];
    } else {
      const bool known = valued.count(word) > 0;
      throw Error(ErrorCode::usage, known ? word + " has no value" : "unknown option " + word,
                  known ? "a value after it" : "the options that --help lists");
    }
  }
}

std::string Arguments::text(const std::string& option, const std::string& otherwise) const {
  const auto found = values_.find(option);
  return found == values_.end() ? otherwise : found->second;
}

double Arguments::number(const std::string& option, double otherwise) const {
  if (!has(option)) return otherwise;
  const std::string value = values_.at(option);
  char* end = nullptr;
  const double number = std::strtod(value.c_str(), &end);
  if (value.empty() || *end != '\0' || !(number >= 0 && number < 1e9)) {
    throw Error(ErrorCode::usage, option + " " + value, "a number that is not negative");
  }
  return number;
}

int Arguments::whole(const std::string& option, int otherwise) const {
  const double number = this->number(option, otherwise);
  if (number != static_cast<int>(number)) {
    throw Error(ErrorCode::usage, option + " " + text(option, ""), "a whole number");
  }
  return static_cast<int>(number);
}

eightfold::Size Arguments::size(const std::string& option) const {
  if (!has(option)) return {};
  const std::string value = text(option, "");
  const std::size_t cross = value.find('x');
  const int height = side_from(value.substr(0, cross));
  const int width = cross == std::string::npos ? height : side_from(value.substr(cross + 1));
  if (height > 0 && width > 0) return {height, width};
  throw Error(ErrorCode::usage, option + " " + value, "SIDE or HEIGHTxWIDTH, in pixels");
}

int guarded(const char* program, int (*body)(int, char**), int count, char** words) {
  try {
    return body(count, words);
  } catch (const Error& error) {
    std::fprintf(stderr, "%s: %s\n", program, error.what());
    return error.code() == ErrorCode::usage ? 2 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", program, error.what());
    return 1;
  }
}

}  // namespace programs
