// Purpose: what the tests run on, made by code: a tiny ONNX model, bundles, zips, and a folder that goes
// away.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "eightfold/preprocess.hpp"

namespace fixtures {

using Bytes = std::vector<std::uint8_t>;

class Folder {
 public:
  Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder();
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

constexpr eightfold::Size kUsual = {8, 8};

// images (batch, 3, height, width) -> logits (batch, 3): the means of the channels.
Bytes mean_model(int batch, eightfold::Size size = kUsual);

// The files of a bundle with that model at each size and batch size, by name. Its preprocessing has the usual
// size.
std::map<std::string, Bytes> bundle_files(const std::vector<int>& batches,
                                          const std::vector<eightfold::Size>& sizes = {kUsual});
// Digests and sizes anew, after files were changed by someone who means it.
void reseal(std::map<std::string, Bytes>& files, const std::function<void(std::string& manifest)>& edit);

void write_files(const std::string& folder, const std::map<std::string, Bytes>& files);
// Stored members. `large`: as an archive of more than 4 GiB says where its directory is.
Bytes zip_of(const std::map<std::string, Bytes>& files, bool large = false);
void write(const std::string& path, const Bytes& bytes);
Bytes bytes_of(const std::string& text);

}  // namespace fixtures
