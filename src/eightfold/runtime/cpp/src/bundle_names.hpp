// Purpose: names of a bundle's files. They stay inside it, and mean one file each on every file system it may
// be copied to. The same rules as in bundle_names.py.
#pragma once

#include <map>
#include <string>

#include "eightfold/manifest.hpp"

namespace eightfold::detail {

// Throws Error (bundle) naming the first that is not safe. `bundle` stands in messages.
void check_names(const std::map<std::string, FileEntry>& files, const std::string& bundle);

}  // namespace eightfold::detail
