// Any text: a manifest, or an Error.
#include <cstddef>
#include <cstdint>

#include "decoder.hpp"
#include "eightfold/error.hpp"
#include "eightfold/manifest.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const eightfold::Manifest manifest =
        eightfold::manifest_from_json({reinterpret_cast<const char*>(data), size}, "fuzz");
    for (const eightfold::Artifact& artifact : manifest.artifacts) {
      for (const eightfold::TensorSpec& output : artifact.outputs) {
        if (output.shape.empty() || output.shape[0] != artifact.batch || output.elements() > 100000) return 0;
      }
      eightfold::detail::decoder_of(manifest.task, {artifact.outputs, {64, 64}});
    }
  } catch (const eightfold::Error&) {
    return 0;
  }
  return 0;
}
