#include "store.hpp"

#include "eightfold/error.hpp"
#include "file.hpp"
#include "zip.hpp"

namespace eightfold::detail {
namespace {

[[noreturn]] void refuse(const std::string& bundle, const std::string& what, const std::string& allowed) {
  throw Error(ErrorCode::integrity, bundle + ": " + what, allowed,
              "copy the bundle again from where it was made, or make it again");
}

class DirectoryStore : public Store {
 public:
  explicit DirectoryStore(std::string path) : path_(std::move(path)) {}

  std::uint64_t size(const std::string& name) const override {
    Status status;
    for (std::size_t end = 0;
         end != std::string::npos;) {  // a link anywhere on the way could lead out of the bundle
      end = name.find('/', end + 1);
      status = status_of(path_ + "/" + name.substr(0, end), Links::refuse);
      if (status.kind == Kind::link) refuse(path_, name + " is or lies behind a link", "regular files");
    }
    if (status.kind == Kind::absent) refuse(path_, name + " is missing", "the files the manifest lists");
    if (status.kind != Kind::file) refuse(path_, name + " is not a regular file", "regular files");
    return status.bytes;
  }

  bool has(const std::string& name) const override {
    return status_of(path_ + "/" + name, Links::refuse).kind != Kind::absent;
  }

  std::vector<std::uint8_t> read(const std::string& name) const override {
    const std::uint64_t expected = size(name);
    const File file = File::open(path_ + "/" + name, Links::refuse);
    std::vector<std::uint8_t> bytes(expected);
    if (!file.read_at(0, bytes))
      refuse(path_, name + " became shorter while it was read", "files that do not change");
    return bytes;
  }

  std::string path_in_place(const std::string& name) const override { return path_ + "/" + name; }

 private:
  std::string path_;
};

class ZipStore : public Store {
 public:
  explicit ZipStore(std::string path)
      : archive_(File::open(path, Links::follow), path), path_(std::move(path)) {}

  std::uint64_t size(const std::string& name) const override {
    const auto found = archive_.members().find(name);
    if (found == archive_.members().end())
      refuse(path_, name + " is missing", "the files the manifest lists");
    if (!found->second.regular) refuse(path_, name + " is a link", "regular files");
    return found->second.bytes;
  }

  bool has(const std::string& name) const override { return archive_.members().count(name) > 0; }

  std::vector<std::uint8_t> read(const std::string& name) const override {
    size(name);
    return archive_.read(name);
  }

  std::string path_in_place(const std::string&) const override { return {}; }

 private:
  ZipArchive archive_;
  std::string path_;
};

}  // namespace

std::unique_ptr<Store> open_store(const std::string& path) {
  const Kind kind = status_of(path, Links::follow).kind;
  if (kind == Kind::directory) return std::make_unique<DirectoryStore>(path);
  if (kind == Kind::file) return std::make_unique<ZipStore>(path);
  throw Error(ErrorCode::bundle, "there is no bundle at '" + path + "'",
              "a bundle directory or an .eightfold file");
}

}  // namespace eightfold::detail
