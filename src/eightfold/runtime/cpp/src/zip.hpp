// Purpose: read the members of a zip file: stored or deflated, not encrypted. By the same rules as Python
// (zip_reader.py): all that a zip says about itself has to fit together, so that no two readers see different
// files; and what Python's zipfile does not read is refused here as well.
// A damaged or hostile archive gives an Error, never a read outside it nor more memory than its members
// state.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "file.hpp"

namespace eightfold::detail {

struct ZipMember {
  std::uint64_t header_offset = 0;
  std::uint64_t packed_bytes = 0;
  std::uint64_t bytes = 0;
  unsigned method = 0;
  bool regular = true;
};

struct ZipDirectory {
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  std::uint64_t count = 0;  // of entries
};

class ZipArchive {
 public:
  // Throws Error (bundle).
  ZipArchive(File file, std::string path);

  const std::map<std::string, ZipMember>& members() const { return members_; }
  // Throws Error (integrity).
  std::vector<std::uint8_t> read(const std::string& name) const;

 private:
  std::optional<std::uint64_t> start_of(const std::string& name, const ZipMember& member) const;
  std::vector<std::uint8_t> packed(const std::string& name, const ZipMember& member) const;

  File file_;
  std::string path_;
  ZipDirectory directory_;
  std::map<std::string, ZipMember> members_;
};

}  // namespace eightfold::detail
