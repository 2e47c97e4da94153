#include "zip.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <optional>

#include "eightfold/error.hpp"
#include "inflate.hpp"

namespace eightfold::detail {
namespace {

// The records of a zip file, by PKWARE's APPNOTE 6.3.10, sections 4.3.7, 4.3.12 and 4.3.14 to 4.3.16.
constexpr std::uint32_t kLocalSignature = 0x04034b50;
constexpr std::uint32_t kCentralSignature = 0x02014b50;
constexpr std::uint32_t kEndSignature = 0x06054b50;
constexpr std::size_t kLocalBytes = 30;
constexpr std::size_t kCentralBytes = 46;
constexpr std::size_t kEndBytes = 22;
constexpr std::uint32_t kLocatorSignature = 0x07064b50;
constexpr std::size_t kLocatorBytes = 20;
constexpr std::uint32_t kEnd64Signature = 0x06064b50;
constexpr std::size_t kEnd64Bytes = 56;
constexpr std::size_t kLongestComment = 0xffff;
constexpr unsigned kStored = 0;
constexpr unsigned kDeflated = 8;
// Encrypted in one way or another, or a patch of another file (4.4.4: bits 0, 5, 6 and 13).
constexpr unsigned kUnreadableFlags = 0x2061;
constexpr unsigned kLatestVersion = 63;  // of the format; Python's zipfile has the same limit
// Where these stand, the value is in a record of zip64.
constexpr std::uint64_t kFull16 = 0xffff;
constexpr std::uint64_t kFull32 = 0xffffffff;
constexpr unsigned kZip64Extra = 1;
// Deflate cannot pack better than this; a member that claims more lies.
constexpr std::uint64_t kBestRatio = 1032;

using Bytes = span<const std::uint8_t>;

std::uint32_t little_endian(Bytes bytes, std::size_t offset, int count) {
  std::uint32_t value = 0;
  for (int i = 0; i < count; ++i)
    value |= std::uint32_t{bytes[offset + static_cast<std::size_t>(i)]} << (8 * i);
  return value;
}

std::uint64_t little_endian_64(Bytes bytes, std::size_t offset) {
  return little_endian(bytes, offset, 4) | std::uint64_t{little_endian(bytes, offset + 4, 4)} << 32U;
}

[[noreturn]] void not_a_bundle(const std::string& path, const std::string& reason) {
  throw Error(ErrorCode::bundle, path + " is not a bundle (" + reason + ")",
              "a bundle directory or a complete .eightfold file");
}

std::vector<std::uint8_t> read(const File& file, std::uint64_t offset, std::uint64_t bytes,
                               const std::string& path) {
  std::vector<std::uint8_t> data(bytes);
  if (!file.read_at(offset, data)) not_a_bundle(path, "cut off");
  return data;
}

ZipDirectory zip64_directory(const ZipDirectory& short_form, Bytes record, const std::string& path) {
  const ZipDirectory whole = {little_endian_64(record, 48), little_endian_64(record, 40),
                              little_endian_64(record, 32)};
  const auto alike = [](std::uint64_t value, std::uint64_t stated, std::uint64_t full) {
    return value == stated || value == full;
  };
  if (little_endian(record, 0, 4) != kEnd64Signature || !alike(short_form.count, whole.count, kFull16) ||
      !alike(short_form.bytes, whole.bytes, kFull32) || !alike(short_form.offset, whole.offset, kFull32)) {
    not_a_bundle(path, "a damaged zip64 record");
  }
  return whole;
}

// With the numbers of a zip64 record, where there is one before the end record.
ZipDirectory whole_directory(const File& file, ZipDirectory stated, std::uint64_t end,
                             const std::string& path) {
  if (end >= kLocatorBytes) {
    const std::vector<std::uint8_t> locator = read(file, end - kLocatorBytes, kLocatorBytes, path);
    if (little_endian(locator, 0, 4) == kLocatorSignature) {
      const std::uint64_t record = little_endian_64(locator, 8);
      end -= kLocatorBytes;
      if (end < kEnd64Bytes || record != end - kEnd64Bytes) not_a_bundle(path, "a damaged zip64 record");
      end = record;
      stated = zip64_directory(stated, read(file, record, kEnd64Bytes, path), path);
    }
  }
  if (stated.offset > end || stated.bytes != end - stated.offset) {
    not_a_bundle(path, "its directory does not end where its last records begin");
  }
  return stated;
}

// By the last end record, whose comment must be the rest of the file.
ZipDirectory find_directory(const File& file, std::uint64_t size, const std::string& path) {
  const std::uint64_t start = size - std::min<std::uint64_t>(size, kEndBytes + kLongestComment);
  const std::vector<std::uint8_t> tail = read(file, start, size - start, path);
  if (tail.size() < kEndBytes) not_a_bundle(path, "too short for a zip");
  std::size_t at = tail.size() - 4;
  while (at > 0 && little_endian(tail, at, 4) != kEndSignature) --at;
  if (little_endian(tail, at, 4) != kEndSignature || at + kEndBytes > tail.size() ||
      at + kEndBytes + little_endian(tail, at + 20, 2) != tail.size()) {
    not_a_bundle(path, "not a zip, or cut off");
  }
  const ZipDirectory found{little_endian(tail, at + 16, 4), little_endian(tail, at + 12, 4),
                           little_endian(tail, at + 10, 2)};
  return whole_directory(file, found, start + at, path);
}

bool is_regular(Bytes entry) {
  const unsigned mode = little_endian(entry, 38, 4) >> 16;
  return (mode & S_IFMT) == 0 || (mode & S_IFMT) == S_IFREG;
}

bool is_readable(Bytes entry) {
  const unsigned method = little_endian(entry, 10, 2);
  return entry[6] <= kLatestVersion && (little_endian(entry, 8, 2) & kUnreadableFlags) == 0 &&
         (method == kStored || method == kDeflated);
}

// Empty where there is none; nothing where the extra fields are damaged.
std::optional<Bytes> zip64_extra(Bytes extra) {
  Bytes found;
  while (extra.size() >= 4) {
    const std::size_t count = little_endian(extra, 2, 2);
    if (count > extra.size() - 4) return std::nullopt;
    if (found.empty() && little_endian(extra, 0, 2) == kZip64Extra) found = extra.subspan(4, count);
    extra = extra.subspan(4 + count, extra.size() - 4 - count);
  }
  return found;
}

// Values that a field of 32 bits has no room for stand in the extra field, one after the other (4.5.3).
class LargeValues {
 public:
  explicit LargeValues(Bytes record) : record_(record) {}
  // False where one is missing.
  bool complete(std::uint64_t& value) {
    if (value != kFull32) return true;
    if (record_.size() < 8) return false;
    value = little_endian_64(record_, 0);
    record_ = record_.subspan(8, record_.size() - 8);
    return true;
  }

 private:
  Bytes record_;
};

// None where it is damaged.
std::optional<ZipMember> member_from(Bytes entry, Bytes extra) {
  ZipMember member;
  member.method = little_endian(entry, 10, 2);
  member.packed_bytes = little_endian(entry, 20, 4);
  member.bytes = little_endian(entry, 24, 4);
  member.header_offset = little_endian(entry, 42, 4);
  member.regular = is_regular(entry);
  const std::optional<Bytes> record = zip64_extra(extra);
  if (!record) return std::nullopt;
  LargeValues large(*record);
  if (large.complete(member.bytes) && large.complete(member.packed_bytes) &&
      large.complete(member.header_offset)) {
    return member;
  }
  return std::nullopt;
}

bool plausible(const ZipMember& member, std::uint64_t size) {
  if (member.header_offset > size || member.packed_bytes > size) return false;
  return member.method == kStored ? member.bytes == member.packed_bytes
                                  : member.bytes <= (member.packed_bytes + 1) * kBestRatio;
}

struct Entry {
  std::string name;
  Bytes record;  // with the name and what follows it
  Bytes extra;
};

// The first entry of the rest of a directory; none where it is damaged.
std::optional<Entry> entry_from(Bytes rest) {
  if (rest.size() < kCentralBytes || little_endian(rest, 0, 4) != kCentralSignature) return std::nullopt;
  const std::size_t name = little_endian(rest, 28, 2);
  const std::size_t extra = little_endian(rest, 30, 2);
  const std::size_t bytes = kCentralBytes + name + extra + little_endian(rest, 32, 2);
  if (bytes > rest.size()) return std::nullopt;
  return Entry{{reinterpret_cast<const char*>(rest.data() + kCentralBytes), name},
               rest.subspan(0, bytes),
               rest.subspan(kCentralBytes + name, extra)};
}

std::map<std::string, ZipMember> read_members(Bytes rest, std::uint64_t count, std::uint64_t size,
                                              const std::string& path) {
  std::map<std::string, ZipMember> members;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::optional<Entry> entry = entry_from(rest);
    const std::optional<ZipMember> member = entry ? member_from(entry->record, entry->extra) : std::nullopt;
    if (!member) not_a_bundle(path, "a damaged directory");
    rest = rest.subspan(entry->record.size(), rest.size() - entry->record.size());
    if (!entry->name.empty() && entry->name.back() == '/') continue;
    if (!is_readable(entry->record))
      not_a_bundle(path, entry->name + " is encrypted or packed in an unknown way");
    if (!plausible(*member, size)) not_a_bundle(path, entry->name + " states sizes that cannot be");
    if (!members.emplace(entry->name, *member).second) not_a_bundle(path, "it holds two files of one name");
  }
  if (rest.size() > 0) not_a_bundle(path, "a damaged directory");
  return members;
}

}  // namespace

ZipArchive::ZipArchive(File file, std::string path) : file_(std::move(file)), path_(std::move(path)) {
  const std::uint64_t size = file_.size();
  directory_ = find_directory(file_, size, path_);
  members_ = read_members(detail::read(file_, directory_.offset, directory_.bytes, path_), directory_.count,
                          size, path_);
}

// Where its packed bytes begin; none where something else lies there, or they would go on behind the files.
std::optional<std::uint64_t> ZipArchive::start_of(const std::string& name, const ZipMember& member) const {
  std::vector<std::uint8_t> header(kLocalBytes + name.size());
  if (!file_.read_at(member.header_offset, header) || little_endian(header, 0, 4) != kLocalSignature ||
      little_endian(header, 26, 2) != name.size() ||
      !std::equal(name.begin(), name.end(), header.begin() + kLocalBytes,
                  [](char a, std::uint8_t b) { return static_cast<std::uint8_t>(a) == b; })) {
    return std::nullopt;
  }
  const std::uint64_t start = member.header_offset + header.size() + little_endian(header, 28, 2);
  if (start > directory_.offset || member.packed_bytes > directory_.offset - start) return std::nullopt;
  return start;
}

std::vector<std::uint8_t> ZipArchive::packed(const std::string& name, const ZipMember& member) const {
  const std::optional<std::uint64_t> start = start_of(name, member);
  if (start) {
    std::vector<std::uint8_t> bytes(member.packed_bytes);
    if (file_.read_at(*start, bytes)) return bytes;
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
