// Purpose: where a bundle's bytes lie, in a directory or in a zip. A store trusts nothing: links are refused,
// and sizes are checked before anything is read.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace eightfold::detail {

class Store {
 public:
  Store() = default;
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;
  virtual ~Store() = default;

  // Size in bytes. Throws Error (integrity) when there is no such regular file.
  virtual std::uint64_t size(const std::string& name) const = 0;
  virtual bool has(const std::string& name) const = 0;
  virtual std::vector<std::uint8_t> read(const std::string& name) const = 0;
  // The path of a file that can be read in place; empty where it has to be unpacked.
  virtual std::string path_in_place(const std::string& name) const = 0;
};

std::unique_ptr<Store> open_store(const std::string& path);

}  // namespace eightfold::detail
