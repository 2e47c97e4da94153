// Purpose: the one exception type of the library.
// Every message is one line: what was seen, what is allowed, what to do. Codes are those of the C interface.
//
//   try { auto engine = eightfold::Engine::load(path); }
//   catch (const eightfold::Error& error) { log(static_cast<int>(error.code()), error.what()); }
#pragma once

#include <stdexcept>
#include <string>

#include "eightfold/export.h"

namespace eightfold {

enum class ErrorCode : int {
  usage = 1,            // an argument is wrong
  image = 2,            // an image cannot be used
  bundle = 3,           // a bundle cannot be read
  integrity = 4,        // a file of a bundle differs from what its manifest says
  missing_backend = 5,  // the back end is not part of this build, or the bundle has nothing for it
  backend = 6,          // a back end failed
  build = 7,            // an engine builder refused the model
  internal = 8          // a fault of this library, or no memory left
};

class EIGHTFOLD_EXPORT Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& seen, const std::string& allowed = "",
        const std::string& remedy = "");

  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace eightfold
