// Any bytes: an archive whose members can be read, or an Error.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "eightfold/error.hpp"
#include "zip.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const int descriptor = memfd_create("fuzz", 0);
  if (write(descriptor, data, size) != static_cast<ssize_t>(size)) return 0;
  const std::string path = "/proc/self/fd/" + std::to_string(descriptor);
  try {
    using eightfold::detail::File;
    const eightfold::detail::ZipArchive archive(File::open(path, eightfold::detail::Links::follow), "fuzz");
    for (const auto& [name, member] : archive.members()) {
      if (member.bytes < 1U << 24U) archive.read(name);
    }
  } catch (const eightfold::Error&) {
    close(descriptor);
    return 0;
  }
  close(descriptor);
  return 0;
}
