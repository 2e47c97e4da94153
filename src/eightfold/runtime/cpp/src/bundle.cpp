#include "eightfold/bundle.hpp"

#include <algorithm>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "bundle_names.hpp"
#include "eightfold/error.hpp"
#include "file.hpp"
#include "onnx_references.hpp"
#include "sha256.hpp"
#include "signature.hpp"
#include "store.hpp"

namespace eightfold {
namespace {

constexpr const char* kManifestName = "manifest.json";
constexpr const char* kDigestName = "manifest.sha256";
constexpr std::uint64_t kManifestLimitBytes = 4U << 20U;
constexpr std::uint64_t kDigestLimitBytes = 1024;
constexpr const char* kRemedy = "copy the bundle again from where it was made, or make it again";

std::string read_text(const detail::Store& store, const std::string& bundle, const char* name,
                      std::uint64_t limit) {
  const std::uint64_t bytes = store.size(name);
  if (bytes > limit) {
    throw Error(ErrorCode::bundle, bundle + ": " + name + " has " + std::to_string(bytes) + " bytes",
                "at most " + std::to_string(limit));
  }
  const std::vector<std::uint8_t> data = store.read(name);
  return {data.begin(), data.end()};
}

std::string protected_manifest(const detail::Store& store, const std::string& bundle) {
  std::string text = read_text(store, bundle, kManifestName, kManifestLimitBytes);
  const std::string stated = read_text(store, bundle, kDigestName, kDigestLimitBytes);
  const std::string digest =
      detail::sha256_hex({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
  const std::string first_word = stated.substr(0, stated.find_first_of(" \t\r\n"));
  if (first_word != digest) {
    throw Error(ErrorCode::integrity,
                bundle + ": " + kManifestName + " differs from the digest in " + kDigestName,
                "a manifest as it was written", kRemedy);
  }
  return text;
}

void check_references(const Manifest& manifest, const std::string& bundle) {
  const auto check = [&](const std::string& name) {
    if (manifest.files.count(name) > 0) return;
    throw Error(ErrorCode::bundle,
                bundle + ": the manifest refers to '" + name + "', which is not among its files",
                "names listed under 'files'", "make the bundle again");
  };
  for (const Artifact& artifact : manifest.artifacts) {
    check(artifact.path);
    for (const std::string& name : artifact.files) check(name);
  }
  for (const auto& [role, name] : manifest.documents) check(name);
}

void check_files(const Manifest& manifest, const detail::Store& store, const std::string& bundle) {
  detail::check_names(manifest.files, bundle);
  for (const auto& [name, entry] : manifest.files) {
    const std::uint64_t seen = store.size(name);
    if (seen != entry.bytes) {
      throw Error(ErrorCode::integrity, bundle + ": " + name + " has " + std::to_string(seen) + " bytes",
                  std::to_string(entry.bytes) + ", as in the manifest", kRemedy);
    }
  }
}

std::vector<detail::OnnxReference> references_of(const Artifact& artifact, span<const std::uint8_t> model,
                                                 const std::string& bundle) {
  if (artifact.format != Format::onnx) return {};
  try {
    return detail::references_in(model);
  } catch (const detail::NotOnnx& error) {
    throw Error(ErrorCode::bundle, bundle + ": " + artifact.path + " is no ONNX graph (" + error.what() + ")",
                "a whole ONNX file", "make the bundle again");
  }
}

std::string joined(const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list.empty() ? "none" : list;
}

}  // namespace

struct Bundle::State {
  std::string path;
  std::unique_ptr<detail::Store> store;
  Manifest manifest;
  std::mutex lock;
  std::unique_ptr<detail::TemporaryDirectory> unpacked;
  std::unordered_map<std::string, std::string> paths;
};

Bundle::Bundle(std::unique_ptr<State> state) : state_(std::move(state)) {}
Bundle::Bundle(Bundle&&) noexcept = default;
Bundle& Bundle::operator=(Bundle&&) noexcept = default;
Bundle::~Bundle() = default;

Bundle Bundle::open(const std::string& path, const std::string& public_key) {
  auto state = std::make_unique<State>();
  state->path = path;
  state->store = detail::open_store(path);
  const std::string text = protected_manifest(*state->store, path);
  if (!public_key.empty()) detail::check_signature(*state->store, path, text, public_key);
  state->manifest = manifest_from_json(text, path + ": " + kManifestName);
  check_references(state->manifest, path);
  check_files(state->manifest, *state->store, path);
  return Bundle(std::move(state));
}

const std::string& Bundle::path() const { return state_->path; }
const Manifest& Bundle::manifest() const { return state_->manifest; }

std::vector<std::uint8_t> Bundle::read(const std::string& name) const {
  const auto entry = state_->manifest.files.find(name);
  if (entry == state_->manifest.files.end()) {
    throw Error(ErrorCode::bundle, state_->path + " holds no file '" + name + "'",
                "names listed under 'files'");
  }
  std::vector<std::uint8_t> bytes = state_->store->read(name);
  if (bytes.size() != entry->second.bytes || detail::sha256_hex(bytes) != entry->second.sha256) {
    throw Error(ErrorCode::integrity,
                state_->path + ": " + name + " differs from its SHA-256 in the manifest",
                "files as they were written", kRemedy);
  }
  return bytes;
}

std::string Bundle::unpacked_path(const std::string& name) const {
  const std::lock_guard<std::mutex> guard(state_->lock);
  const auto known = state_->paths.find(name);
  if (known != state_->paths.end()) return known->second;
  const std::vector<std::uint8_t> bytes = read(name);
  std::string path = state_->store->path_in_place(name);
  if (path.empty()) {
    if (!state_->unpacked) state_->unpacked = std::make_unique<detail::TemporaryDirectory>();
    path = state_->unpacked->write(name, bytes);
  }
  return state_->paths[name] = path;
}

void Bundle::check_further_files(const Artifact& artifact, span<const std::uint8_t> model) const {
  const std::string folder = artifact.path.substr(0, artifact.path.rfind('/') + 1);
  for (const detail::OnnxReference& reference : references_of(artifact, model, state_->path)) {
    // Names in a manifest stay inside the bundle; so does a reference that is equal to one of them.
    const std::string name = folder + reference.location;
    if (std::find(artifact.files.begin(), artifact.files.end(), name) == artifact.files.end()) {
      throw Error(ErrorCode::bundle,
                  state_->path + ": " + artifact.path + " takes weights from '" + reference.location + "'",
                  "files that the manifest lists for it (" + joined(artifact.files) + ")",
                  "do not use this bundle; make it again");
    }
    const std::uint64_t end = reference.offset + reference.length;  // of 18 digits each
    const std::uint64_t bytes = state_->manifest.files.at(name).bytes;
    if (end > bytes) {
      throw Error(ErrorCode::bundle,
                  state_->path + ": " + artifact.path + " takes bytes " + std::to_string(reference.offset) +
                      " to " + std::to_string(end) + " of " + name,
                  "0 to " + std::to_string(bytes), "do not use this bundle; make it again");
    }
  }
}

std::size_t Bundle::verify() const {
  for (const auto& [name, entry] : state_->manifest.files) {
    const std::vector<std::uint8_t> bytes = read(name);
    for (const Artifact& artifact : state_->manifest.artifacts) {
      if (artifact.path == name) check_further_files(artifact, bytes);
    }
  }
  return state_->manifest.files.size();
}

}  // namespace eightfold
