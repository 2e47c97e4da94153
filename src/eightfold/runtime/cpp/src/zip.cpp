#include "zip.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <array>

#include "eightfold/error.hpp"
#include "inflate.hpp"

namespace eightfold::detail {
namespace {

// The records of a zip file, by PKWARE's APPNOTE 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16.
constexpr std::uint32_t kLocalSignature = 0x04034b50;
constexpr std::uint32_t kCentralSignature = 0x02014b50;
constexpr std::uint32_t kEndSignature = 0x06054b50;
constexpr std::size_t kLocalBytes = 30;
constexpr std::size_t kCentralBytes = 46;
constexpr std::size_t kEndBytes = 22;
constexpr std::size_t kLongestComment = 0xffff;
constexpr unsigned kStored = 0;
constexpr unsigned kDeflated = 8;
// Deflate cannot pack better than this; a member that claims more lies.
constexpr std::uint64_t kBestRatio = 1032;

using Bytes = span<const std::uint8_t>;

std::uint32_t little_endian(Bytes bytes, std::size_t offset, int count) {
  std::uint32_t value = 0;
  for (int i = 0; i < count; ++i)
    value |= std::uint32_t{bytes[offset + static_cast<std::size_t>(i)]} << (8 * i);
  return value;
}

struct Directory {
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  std::uint32_t count = 0;
};

[[noreturn]] void not_a_bundle(const std::string& path, const std::string& reason) {
  throw Error(ErrorCode::bundle, path + " is not a bundle (" + reason + ")",
              "a bundle directory or a complete .eightfold file");
}

Directory find_directory(const File& file, std::uint64_t size, const std::string& path) {
  std::vector<std::uint8_t> tail(std::min<std::uint64_t>(size, kEndBytes + kLongestComment));
  if (tail.size() < kEndBytes || !file.read_at(size - tail.size(), tail))
    not_a_bundle(path, "too short for a zip");
  for (std::size_t at = tail.size() - kEndBytes + 1; at-- > 0;) {
    if (little_endian(tail, at, 4) != kEndSignature) continue;
    const Directory found{little_endian(tail, at + 16, 4), little_endian(tail, at + 12, 4),
                          little_endian(tail, at + 10, 2)};
    if (found.offset == 0xffffffff || found.count == 0xffff) not_a_bundle(path, "a zip64 archive");
    if (found.offset + found.bytes > size) not_a_bundle(path, "its directory lies outside it");
    return found;
  }
  not_a_bundle(path, "not a zip, or cut off");
}

bool is_regular(Bytes entry) {
  const unsigned mode = little_endian(entry, 38, 4) >> 16;
  return (mode & S_IFMT) == 0 || (mode & S_IFMT) == S_IFREG;
}

bool is_readable(Bytes entry) {
  const unsigned flags = little_endian(entry, 8, 2);
  const unsigned method = little_endian(entry, 10, 2);
  return (flags & 1) == 0 && (method == kStored || method == kDeflated);
}

ZipMember member_from(Bytes entry) {
  ZipMember member;
  member.method = little_endian(entry, 10, 2);
  member.packed_bytes = little_endian(entry, 20, 4);
  member.bytes = little_endian(entry, 24, 4);
  member.header_offset = little_endian(entry, 42, 4);
  member.regular = is_regular(entry);
  return member;
}

bool plausible(const ZipMember& member, std::uint64_t size) {
  if (member.header_offset > size || member.packed_bytes > size) return false;
  return member.method == kStored ? member.bytes == member.packed_bytes
                                  : member.bytes <= (member.packed_bytes + 1) * kBestRatio;
}

std::map<std::string, ZipMember> read_members(Bytes directory, const Directory& stated, std::uint64_t size,
                                              const std::string& path) {
  std::map<std::string, ZipMember> members;
  std::size_t at = 0;
  for (std::uint32_t i = 0; i < stated.count; ++i) {
    if (directory.size() - at < kCentralBytes || little_endian(directory, at, 4) != kCentralSignature) {
      not_a_bundle(path, "a damaged directory");
    }
    const Bytes entry = directory.subspan(at, directory.size() - at);
    const std::size_t name_bytes = little_endian(entry, 28, 2);
    const std::size_t entry_bytes =
        kCentralBytes + name_bytes + little_endian(entry, 30, 2) + little_endian(entry, 32, 2);
    if (entry_bytes > entry.size()) not_a_bundle(path, "a damaged directory");
    std::string name(reinterpret_cast<const char*>(entry.data() + kCentralBytes), name_bytes);
    at += entry_bytes;
    if (!name.empty() && name.back() == '/') continue;
    const ZipMember member = member_from(entry);
    if (!is_readable(entry)) not_a_bundle(path, name + " is encrypted or packed in an unknown way");
    if (!plausible(member, size)) not_a_bundle(path, name + " states sizes that cannot be");
    if (!members.emplace(std::move(name), member).second)
      not_a_bundle(path, "it holds two files of one name");
  }
  return members;
}

}  // namespace

ZipArchive::ZipArchive(File file, std::string path)
    : file_(std::move(file)), path_(std::move(path)), size_(file_.size()) {
  const Directory stated = find_directory(file_, size_, path_);
  std::vector<std::uint8_t> directory(stated.bytes);
  if (!file_.read_at(stated.offset, directory)) not_a_bundle(path_, "cut off");
  members_ = read_members(directory, stated, size_, path_);
}

std::vector<std::uint8_t> ZipArchive::packed(const std::string& name, const ZipMember& member) const {
  std::array<std::uint8_t, kLocalBytes> header = {};
  const span<std::uint8_t> view(header.data(), header.size());
  if (file_.read_at(member.header_offset, view) && little_endian(view, 0, 4) == kLocalSignature) {
    const std::uint64_t start =
        member.header_offset + kLocalBytes + little_endian(view, 26, 2) + little_endian(view, 28, 2);
    std::vector<std::uint8_t> bytes(member.packed_bytes);
    if (start + member.packed_bytes <= size_ && file_.read_at(start, bytes)) return bytes;
  }
  throw Error(ErrorCode::integrity, path_ + ": " + name + " cannot be unpacked",
              "a complete .eightfold file");
}

std::vector<std::uint8_t> ZipArchive::read(const std::string& name) const {
  const ZipMember& member = members_.at(name);
  std::vector<std::uint8_t> bytes = packed(name, member);
  if (member.method == kStored) return bytes;
  std::vector<std::uint8_t> result(member.bytes);
  if (!inflate(bytes, result)) {
    throw Error(ErrorCode::integrity, path_ + ": " + name + " cannot be unpacked",
                "a complete .eightfold file");
  }
  return result;
}

}  // namespace eightfold::detail
