// Purpose: a bundle, a directory or one .eightfold zip of it, whose files are what its manifest says they
// are. What is checked when, as in Python: opening checks the manifest against manifest.sha256, then every
// name, kind and size; a file's digest is checked when it is read, on the bytes that are handed out. Thread
// safety: const member functions may be called from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "eightfold/export.h"
#include "eightfold/manifest.hpp"
#include "eightfold/span.hpp"

namespace eightfold {

class EIGHTFOLD_EXPORT Bundle {
 public:
  // Throws Error: `bundle` where there is none or its manifest cannot be understood, `integrity` where a file
  // is missing, has another size, is a link, or the manifest was edited.
  // With a public key (a PEM file, see `eightfold sign`), also where that key did not sign it; builds without
  // OpenSSL refuse to be asked.
  static Bundle open(const std::string& path, const std::string& public_key = "");

  Bundle(Bundle&&) noexcept;
  Bundle(const Bundle&) = delete;
  Bundle& operator=(const Bundle&) = delete;
  Bundle& operator=(Bundle&&) noexcept;
  ~Bundle();

  const std::string& path() const;
  const Manifest& manifest() const;

  // The whole of a file, after its SHA-256 was checked. Throws Error (integrity).
  std::vector<std::uint8_t> read(const std::string& name) const;
  // A path with that content, for libraries that read files themselves. A zip's members are unpacked into a
  // temporary directory, which goes away with the bundle.
  std::string unpacked_path(const std::string& name) const;
  // Checks that a graph takes its weights from no file but the artifact's own, which the manifest lists.
  // `model` is the content of the artifact's file. Throws Error (bundle).
  void check_further_files(const Artifact& artifact, span<const std::uint8_t> model) const;
  // Checks every file, and what each graph refers to. Returns how many files there are.
  std::size_t verify() const;

 private:
  struct State;
  explicit Bundle(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace eightfold
