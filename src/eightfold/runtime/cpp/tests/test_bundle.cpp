#include <doctest/doctest.h>
#include <unistd.h>

#include "eightfold/bundle.hpp"
#include "eightfold/error.hpp"
#include "fixtures.hpp"
#include "onnx_references.hpp"

using eightfold::Bundle;
using eightfold::Error;
using eightfold::ErrorCode;

namespace {

// What opening and verifying says; "" where all is well.
std::string verdict(const std::string& path, ErrorCode& code) {
  try {
    Bundle::open(path).verify();
  } catch (const Error& error) {
    code = error.code();
    return error.what();
  }
  return "";
}

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("a directory and a zip hold the same") {
  const fixtures::Folder folder;
  const auto files = fixtures::bundle_files({1, 4});
  fixtures::write_files(folder / "directory", files);
  fixtures::write(folder / "packed.eightfold", fixtures::zip_of(files));
  const Bundle directory = Bundle::open(folder / "directory");
  const Bundle packed = Bundle::open(folder / "packed.eightfold");
  CHECK(directory.verify() == 2);
  CHECK(packed.verify() == 2);
  CHECK(directory.read("onnx/b1.onnx") == packed.read("onnx/b1.onnx"));
  CHECK(directory.unpacked_path("onnx/b1.onnx") == folder / "directory/onnx/b1.onnx");
}

TEST_CASE("what a zip unpacks goes away with the bundle") {
  const fixtures::Folder folder;
  fixtures::write(folder / "packed.eightfold", fixtures::zip_of(fixtures::bundle_files({1})));
  std::string path;
  {
    const Bundle packed = Bundle::open(folder / "packed.eightfold");
    path = packed.unpacked_path("onnx/b1.onnx");
    CHECK(packed.unpacked_path("onnx/b1.onnx") == path);
    CHECK(::access(path.c_str(), R_OK) == 0);
  }
  CHECK(::access(path.c_str(), R_OK) != 0);
}

TEST_CASE("every byte of a small bundle is protected") {
  const fixtures::Folder folder;
  for (const auto& [name, whole] : fixtures::bundle_files({1})) {
    for (std::size_t at = 0; at < whole.size(); at += 7) {
      auto files = fixtures::bundle_files({1});
      files[name][at] ^= 0x20;
      fixtures::write_files(folder / "bundle", files);
      ErrorCode code{};
      const std::string message = verdict(folder / "bundle", code);
      // The digest's own line may differ after its first word.
      if (name == "manifest.sha256" && at >= 64) continue;
      CHECK_MESSAGE(code == ErrorCode::integrity, name << " at " << at << ": " << message);
    }
  }
}

TEST_CASE("names that leave the bundle") {
  const fixtures::Folder folder;
  for (const std::string name :
       {"../b1.onnx", "/etc/passwd", "onnx//b1.onnx", "onnx/./b1.onnx", "a\\\\b", "C:/b", ""}) {
    auto files = fixtures::bundle_files({1});
    fixtures::reseal(files, [&](std::string& manifest) {
      const std::string entry = R"("files": {)";
      manifest.replace(
          manifest.find(entry), entry.size(),
          entry + "\"" + name + R"(": {"bytes": 0, "sha256": ")" + std::string(64, '0') + "\"}, ");
    });
    fixtures::write_files(folder / "bundle", files);
    ErrorCode code{};
    CHECK(holds(verdict(folder / "bundle", code), "stay inside the bundle"));
    CHECK(code == ErrorCode::bundle);
  }
}

TEST_CASE("links, absent files and other kinds") {
  const fixtures::Folder folder;
  const auto files = fixtures::bundle_files({1});
  ErrorCode code{};
  fixtures::write_files(folder / "bundle", files);
  ::unlink((folder / "bundle/onnx/b1.onnx").c_str());
  CHECK(holds(verdict(folder / "bundle", code), "is missing"));
  CHECK(::symlink("/etc/passwd", (folder / "bundle/onnx/b1.onnx").c_str()) == 0);
  CHECK(holds(verdict(folder / "bundle", code), "behind a link"));
  CHECK(holds(verdict(folder / "nowhere", code), "there is no bundle"));
  CHECK(code == ErrorCode::bundle);
}

TEST_CASE("zips that are cut off or lie") {
  const fixtures::Folder folder;
  const std::string path = folder / "packed.eightfold";
  ErrorCode code{};
  for (const bool large : {false, true}) {
    const fixtures::Bytes whole = fixtures::zip_of(fixtures::bundle_files({1}), large);
    for (std::size_t size = 0; size < whole.size(); size += 11) {
      fixtures::write(path, {whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)});
      CHECK(!verdict(path, code).empty());
    }
    for (std::size_t at = 0; at < whole.size(); ++at) {
      fixtures::Bytes changed = whole;
      changed[at] ^= 0xff;
      fixtures::write(path, changed);
      verdict(path, code);  // some bytes do not matter; none may crash
    }
    fixtures::write(path, whole);
    CHECK(verdict(path, code).empty());
  }
}

TEST_CASE("zips with something before or behind them") {
  const fixtures::Folder folder;
  const std::string path = folder / "packed.eightfold";
  const fixtures::Bytes whole = fixtures::zip_of(fixtures::bundle_files({1}));
  ErrorCode code{};
  fixtures::Bytes longer = whole;
  longer.insert(longer.begin(), {'#', '!'});
  fixtures::write(path, longer);
  CHECK(holds(verdict(path, code), "its directory does not end where its last records begin"));
  CHECK(code == ErrorCode::bundle);
  longer = whole;
  longer.push_back(0);
  fixtures::write(path, longer);
  CHECK(holds(verdict(path, code), "not a zip, or cut off"));
}

TEST_CASE("references to further files are found, and what cannot be followed is refused") {
  using eightfold::detail::NotOnnx;
  using eightfold::detail::references_in;
  const auto sized = [](int field, const std::string& content) {
    return std::string{static_cast<char>(field << 3 | 2), static_cast<char>(content.size())} + content;
  };
  const auto entry = [&](const std::string& key, const std::string& value) {
    return sized(13, sized(1, key) + sized(2, value));
  };
  const auto model = [&](const std::string& tensor) {
    const std::string text = sized(7, sized(5, tensor));
    return std::vector<std::uint8_t>(text.begin(), text.end());
  };
  const auto found = references_in(model(entry("location", "w.bin") + entry("offset", "4096")));
  REQUIRE(found.size() == 1);
  CHECK(found[0].location == "w.bin");
  CHECK(found[0].offset == 4096);
  CHECK(references_in(model(sized(9, "raw data"))).empty());
  CHECK_THROWS_AS(references_in(model(entry("offset", "1"))), NotOnnx);
  CHECK_THROWS_AS(references_in(model(entry("location", "a") + entry("location", "b"))), NotOnnx);
  CHECK_THROWS_AS(references_in(model(entry("location", "a") + entry("length", "-1"))), NotOnnx);
  CHECK_THROWS_AS(references_in({}), NotOnnx);
  std::vector<std::uint8_t> cut = model(entry("location", "w.bin"));
  cut.pop_back();
  CHECK_THROWS_AS(references_in(cut), NotOnnx);
}
