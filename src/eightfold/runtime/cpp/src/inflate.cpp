#include "inflate.hpp"

#include <zlib.h>

#include <algorithm>
#include <limits>
#include <memory>

namespace eightfold::detail {
namespace {

struct End {
  void operator()(z_stream* stream) const { inflateEnd(stream); }
};

// zlib counts in 32 bits.
uInt part_of(std::size_t bytes) {
  return static_cast<uInt>(std::min<std::size_t>(bytes, std::numeric_limits<uInt>::max()));
}

}  // namespace

bool inflate(span<const std::uint8_t> input, span<std::uint8_t> output) {
  Bytef nothing = 0;  // zlib wants a place to write to even where it will write nothing
  z_stream stream = {};
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) return false;
  const std::unique_ptr<z_stream, End> end(&stream);
  stream.next_in = const_cast<Bytef*>(input.data());  // NOLINT: zlib's type is older than const
  stream.next_out = output.empty() ? &nothing : output.data();
  for (int status = Z_OK; status == Z_OK;) {
    stream.avail_in = part_of(static_cast<std::size_t>(input.end() - stream.next_in));
    stream.avail_out = output.empty() ? 0 : part_of(static_cast<std::size_t>(output.end() - stream.next_out));
    status = ::inflate(&stream, Z_NO_FLUSH);
    if (status == Z_STREAM_END) return output.empty() || stream.next_out == output.end();
  }
  return false;
}

}  // namespace eightfold::detail
