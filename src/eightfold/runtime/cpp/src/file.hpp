// Purpose: the few things that are needed of POSIX files, with this library's errors.
// (Not std::filesystem: the compilers of the oldest supported boards lack it or keep it in a library of its
// own.)
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "eightfold/span.hpp"

namespace eightfold::detail {

enum class Links { refuse, follow };

// Ownership: closes the descriptor.
class File {
 public:
  // `links` is about the last part of the path. Throws Error (integrity) when it cannot be opened.
  static File open(const std::string& path, Links links);
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File();

  std::uint64_t size() const;
  // Fills `bytes` from `offset`; false when the file ends before that.
  bool read_at(std::uint64_t offset, span<std::uint8_t> bytes) const;

 private:
  File(int descriptor, std::string path) : descriptor_(descriptor), path_(std::move(path)) {}
  int descriptor_;
  std::string path_;
};

enum class Kind { absent, file, directory, link, other };
struct Status {
  Kind kind = Kind::absent;
  std::uint64_t bytes = 0;
};
// What lies at a path. A link that is not followed is reported as such.
Status status_of(const std::string& path, Links links);

// Removes what it unpacked when it goes away.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory();

  // Writes a file below the directory, `name` being relative and checked, and returns its path.
  std::string write(const std::string& name, span<const std::uint8_t> bytes);

 private:
  std::string path_;
  std::vector<std::string> files_;
  std::vector<std::string> directories_;
};

void write_file(const std::string& path, span<const std::uint8_t> bytes);

}  // namespace eightfold::detail
