#include "onnx_digest.hpp"

#include <set>
#include <vector>

#include "eightfold/error.hpp"
#include "file.hpp"
#include "onnx_references.hpp"
#include "sha256.hpp"

namespace eightfold::detail {
namespace {

std::vector<std::uint8_t> content_of(const std::string& path) {
  const File file = File::open(path, Links::follow);
  std::vector<std::uint8_t> bytes(file.size());
  if (!file.read_at(0, bytes)) throw Error(ErrorCode::integrity, "cannot read " + path, "a complete file");
  return bytes;
}

std::set<std::string> further_files(const std::string& path, const std::vector<std::uint8_t>& onnx) {
  try {
    std::set<std::string> names;
    for (const OnnxReference& reference : references_in(onnx)) names.insert(reference.location);
    return names;
  } catch (const NotOnnx& fault) {
    throw Error(ErrorCode::integrity, path + " is damaged: " + fault.what(), "a whole ONNX file");
  }
}

}  // namespace

std::string sha256_of_onnx(const std::string& path) {
  const std::vector<std::uint8_t> onnx = content_of(path);
  const std::set<std::string> names = further_files(path, onnx);
  std::string digests = sha256_hex(onnx);
  if (names.empty()) return digests;
  const std::string folder = path.substr(0, path.rfind('/') + 1);  // "" where there is no '/'
  for (const std::string& name : names) digests += sha256_hex(content_of(folder + name));
  return sha256_hex({reinterpret_cast<const std::uint8_t*>(digests.data()), digests.size()});
}

}  // namespace eightfold::detail
