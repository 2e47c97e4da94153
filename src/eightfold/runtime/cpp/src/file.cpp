#include "file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <system_error>

#include "eightfold/error.hpp"

namespace eightfold::detail {
namespace {

std::string last_system_error() { return std::generic_category().message(errno); }

bool write_all(int descriptor, span<const std::uint8_t> bytes) {
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t count = ::write(descriptor, bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno != EINTR) return false;
    if (count > 0) done += static_cast<std::size_t>(count);
  }
  return true;
}

}  // namespace

File File::open(const std::string& path, Links links) {
  const int descriptor =
      ::open(path.c_str(), O_RDONLY | O_CLOEXEC | (links == Links::refuse ? O_NOFOLLOW : 0));
  if (descriptor < 0) {
    throw Error(ErrorCode::integrity, "cannot open " + path + " (" + last_system_error() + ")",
                "a readable file");
  }
  return {descriptor, path};
}

File::File(File&& other) noexcept : descriptor_(other.descriptor_), path_(std::move(other.path_)) {
  other.descriptor_ = -1;
}

File& File::operator=(File&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(path_, other.path_);
  return *this;
}

File::~File() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

std::uint64_t File::size() const {
  struct stat status = {};
  if (::fstat(descriptor_, &status) != 0) {
    throw Error(ErrorCode::integrity, "cannot read " + path_ + " (" + last_system_error() + ")");
  }
  return static_cast<std::uint64_t>(status.st_size);
}

bool File::read_at(std::uint64_t offset, span<std::uint8_t> bytes) const {
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t count =
        ::pread(descriptor_, bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
    if (count == 0 || (count < 0 && errno != EINTR)) return false;
    if (count > 0) done += static_cast<std::size_t>(count);
  }
  return true;
}

Status status_of(const std::string& path, Links links) {
  struct stat status = {};
  const bool follow = links == Links::follow;
  if ((follow ? ::stat(path.c_str(), &status) : ::lstat(path.c_str(), &status)) != 0) return {};
  Kind kind = Kind::other;
  if (S_ISREG(status.st_mode)) kind = Kind::file;
  if (S_ISDIR(status.st_mode)) kind = Kind::directory;
  if (S_ISLNK(status.st_mode)) kind = Kind::link;
  return {kind, static_cast<std::uint64_t>(status.st_size)};
}

TemporaryDirectory::TemporaryDirectory() {
  const char* parent = std::getenv("TMPDIR");
  path_ = std::string(parent != nullptr && *parent != '\0' ? parent : "/tmp") + "/eightfold-XXXXXX";
  if (::mkdtemp(path_.data()) == nullptr) {
    throw Error(ErrorCode::bundle, "cannot unpack into " + path_ + " (" + last_system_error() + ")",
                "a writable temporary directory", "set TMPDIR to one");
  }
}

TemporaryDirectory::~TemporaryDirectory() {
  for (const std::string& file : files_) ::unlink(file.c_str());
  std::for_each(directories_.rbegin(), directories_.rend(),
                [](const std::string& path) { ::rmdir(path.c_str()); });
  ::rmdir(path_.c_str());
}

std::string TemporaryDirectory::write(const std::string& name, span<const std::uint8_t> bytes) {
  for (std::size_t slash = name.find('/'); slash != std::string::npos; slash = name.find('/', slash + 1)) {
    const std::string directory = path_ + "/" + name.substr(0, slash);
    if (::mkdir(directory.c_str(), 0700) == 0) directories_.push_back(directory);
  }
  std::string path = path_ + "/" + name;
  write_file(path, bytes);
  files_.push_back(path);
  return path;
}

void write_file(const std::string& path, span<const std::uint8_t> bytes) {
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  const bool written = descriptor >= 0 && write_all(descriptor, bytes);
  const std::string reason = last_system_error();
  if (descriptor >= 0) ::close(descriptor);
  if (!written)
    throw Error(ErrorCode::bundle, "cannot write " + path + " (" + reason + ")", "a writable place");
}

}  // namespace eightfold::detail
