// Purpose: command lines of the programs: positional arguments, and options with or without a value.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "eightfold/preprocess.hpp"

namespace programs {

class Arguments {
 public:
  // `valued` and `flags` are the options known, with their dashes. Throws eightfold::Error (usage).
  Arguments(int count, const char* const* words, const std::set<std::string>& valued,
            const std::set<std::string>& flags);

  const std::vector<std::string>& positional() const { return positional_; }
  bool has(const std::string& option) const { return values_.count(option) > 0; }
  std::string text(const std::string& option, const std::string& otherwise) const;
  int whole(const std::string& option, int otherwise) const;
  // Of SIDE or HEIGHTxWIDTH; all zero where it was not given.
  eightfold::Size size(const std::string& option) const;
  double number(const std::string& option, double otherwise) const;

 private:
  std::vector<std::string> positional_;
  std::map<std::string, std::string> values_;
};

// Runs a program's body: an Error becomes one line on standard error and its exit code, 2 for wrong usage,
// else 1.
int guarded(const char* program, int (*body)(int, char**), int count, char** words);

}  // namespace programs
