#include "inflate.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

namespace eightfold::detail {
namespace {

constexpr int kMaxCodeBits = 15;
constexpr int kEndOfBlock = 256;

// Thrown and caught in this file alone: damage can show up at any depth.
struct Damaged {};

void require(bool condition) {
  if (!condition) throw Damaged{};
}

class BitReader {
 public:
  explicit BitReader(span<const std::uint8_t> input) : input_(input) {}

  // The next `count` bits without taking them; zeros follow the end.
  std::uint32_t peek(int count) {
    while (available_ < count) {
      const std::uint64_t byte = position_ < input_.size() ? input_[position_] : 0;
      ++position_;
      buffer_ |= byte << available_;
      available_ += 8;
    }
    return static_cast<std::uint32_t>(buffer_ & ((std::uint64_t{1} << count) - 1));
  }

  void skip(int count) {
    buffer_ >>= count;
    available_ -= count;
    require(position_ * 8 <= input_.size() * 8 + static_cast<std::size_t>(available_));
  }

  std::uint32_t take(int count) {
    const std::uint32_t bits = peek(count);
    skip(count);
    return bits;
  }

  // The next `count` whole bytes, from the next byte boundary.
  span<const std::uint8_t> bytes(std::size_t count) {
    skip(available_ % 8);
    position_ -= static_cast<std::size_t>(available_ / 8);
    buffer_ = 0;
    available_ = 0;
    require(position_ <= input_.size() && count <= input_.size() - position_);
    position_ += count;
    return {input_.data() + position_ - count, count};
  }

 private:
  span<const std::uint8_t> input_;
  std::size_t position_ = 0;
  std::uint64_t buffer_ = 0;
  int available_ = 0;
};

// A canonical Huffman code as one table over the longest code's bits: symbol << 4 | length, 0 where no code
// lies.
class HuffmanTable {
 public:
  explicit HuffmanTable(span<const std::uint8_t> lengths) {
    std::array<std::uint32_t, kMaxCodeBits + 2> next = first_codes(lengths);
    table_.assign(std::size_t{1} << bits_, 0);
    for (std::size_t symbol = 0; symbol < lengths.size(); ++symbol) {
      const int length = lengths[symbol];
      if (length > 0) place(static_cast<int>(symbol), length, next[length]++);
    }
  }

  int decode(BitReader& bits) const {
    const std::uint16_t entry = table_[bits.peek(bits_)];
    require(entry != 0);
    bits.skip(entry & 15);
    return entry >> 4;
  }

 private:
  // The first code of each length; refuses lengths that claim more codes than there are.
  std::array<std::uint32_t, kMaxCodeBits + 2> first_codes(span<const std::uint8_t> lengths) {
    std::array<std::uint32_t, kMaxCodeBits + 2> counts = {};
    for (const std::uint8_t length : lengths) ++counts[length];
    counts[0] = 0;
    std::array<std::uint32_t, kMaxCodeBits + 2> next = {};
    for (int length = 1; length <= kMaxCodeBits; ++length) {
      next[length + 1] = (next[length] + counts[length]) << 1;
      require(next[length] + counts[length] <= std::uint32_t{1} << length);
      if (counts[length] > 0) bits_ = length;
    }
    return next;
  }

  void place(int symbol, int length, std::uint32_t code) {
    std::uint32_t reversed = 0;
    for (int i = 0; i < length; ++i) reversed |= (code >> i & 1) << (length - 1 - i);
    for (std::size_t i = reversed; i < table_.size(); i += std::size_t{1} << length) {
      table_[i] = static_cast<std::uint16_t>(symbol << 4 | length);
    }
  }

  int bits_ = 1;
  std::vector<std::uint16_t> table_;
};

class Output {
 public:
  explicit Output(span<std::uint8_t> bytes) : bytes_(bytes) {}

  void literal(int value) {
    require(filled_ < bytes_.size());
    bytes_[filled_++] = static_cast<std::uint8_t>(value);
  }

  void append(span<const std::uint8_t> bytes) {
    require(bytes.size() <= bytes_.size() - filled_);
    std::copy(bytes.begin(), bytes.end(), bytes_.data() + filled_);
    filled_ += bytes.size();
  }

  void repeat(std::size_t distance, std::size_t length) {
    require(distance <= filled_ && length <= bytes_.size() - filled_);
    for (std::size_t i = 0; i < length; ++i, ++filled_) bytes_[filled_] = bytes_[filled_ - distance];
  }

  bool full() const { return filled_ == bytes_.size(); }

 private:
  span<std::uint8_t> bytes_;
  std::size_t filled_ = 0;
};

struct Codes {
  HuffmanTable symbols;
  HuffmanTable distances;
};

constexpr std::array<std::uint16_t, 29> kLengthBase = {3,  4,  5,  6,   7,   8,   9,   10,  11, 13,
                                                       15, 17, 19, 23,  27,  31,  35,  43,  51, 59,
                                                       67, 83, 99, 115, 131, 163, 195, 227, 258};
constexpr std::array<std::uint8_t, 29> kLengthExtra = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                                       2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
constexpr std::array<std::uint16_t, 30> kDistanceBase = {
    1,   2,   3,   4,   5,   7,    9,    13,   17,   25,   33,   49,   65,    97,    129,
    193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};

void decode_repeat(int symbol, BitReader& bits, const Codes& codes, Output& output) {
  const auto length = static_cast<std::size_t>(symbol - kEndOfBlock - 1);
  require(length < kLengthBase.size());
  const std::size_t count = kLengthBase[length] + bits.take(kLengthExtra[length]);
  const int code = codes.distances.decode(bits);
  require(code < static_cast<int>(kDistanceBase.size()));
  output.repeat(kDistanceBase[code] + bits.take(code < 2 ? 0 : code / 2 - 1), count);
}

void decode_block(BitReader& bits, const Codes& codes, Output& output) {
  for (int symbol = 0; (symbol = codes.symbols.decode(bits)) != kEndOfBlock;) {
    if (symbol < kEndOfBlock) {
      output.literal(symbol);
    } else {
      decode_repeat(symbol, bits, codes, output);
    }
  }
}

Codes fixed_codes() {
  std::array<std::uint8_t, 288> lengths;
  std::fill(lengths.begin(), lengths.begin() + 144, std::uint8_t{8});
  std::fill(lengths.begin() + 144, lengths.begin() + 256, std::uint8_t{9});
  std::fill(lengths.begin() + 256, lengths.begin() + 280, std::uint8_t{7});
  std::fill(lengths.begin() + 280, lengths.end(), std::uint8_t{8});
  std::array<std::uint8_t, 30> distances;
  distances.fill(5);
  return {HuffmanTable({lengths.data(), lengths.size()}), HuffmanTable({distances.data(), distances.size()})};
}

HuffmanTable read_length_code(BitReader& bits, std::size_t count) {
  constexpr std::array<std::uint8_t, 19> order = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                                  11, 4,  12, 3, 13, 2, 14, 1, 15};
  std::array<std::uint8_t, 19> lengths = {};
  for (std::size_t i = 0; i < count; ++i) lengths[order[i]] = static_cast<std::uint8_t>(bits.take(3));
  return HuffmanTable({lengths.data(), lengths.size()});
}

Codes read_codes(BitReader& bits) {
  const std::size_t symbols = bits.take(5) + 257;
  const std::size_t distances = bits.take(5) + 1;
  const HuffmanTable length_code = read_length_code(bits, bits.take(4) + 4);
  std::vector<std::uint8_t> lengths;
  while (lengths.size() < symbols + distances) {
    const int symbol = length_code.decode(bits);
    if (symbol < 16) {
      lengths.push_back(static_cast<std::uint8_t>(symbol));
    } else if (symbol == 16) {
      require(!lengths.empty());
      lengths.insert(lengths.end(), 3 + bits.take(2), std::uint8_t{lengths.back()});
    } else {
      lengths.insert(lengths.end(), symbol == 17 ? 3 + bits.take(3) : 11 + bits.take(7), std::uint8_t{0});
    }
  }
  require(lengths.size() == symbols + distances && lengths[kEndOfBlock] > 0);
  return {HuffmanTable({lengths.data(), symbols}), HuffmanTable({lengths.data() + symbols, distances})};
}

void copy_stored(BitReader& bits, Output& output) {
  const span<const std::uint8_t> header = bits.bytes(4);
  const unsigned length = header[0] | static_cast<unsigned>(header[1]) << 8;
  const unsigned complement = header[2] | static_cast<unsigned>(header[3]) << 8;
  require((length ^ complement) == 0xffff);
  output.append(bits.bytes(length));
}

void decode_blocks(BitReader& bits, Output& output) {
  for (bool last = false; !last;) {
    last = bits.take(1) == 1;
    switch (bits.take(2)) {
      case 0:
        copy_stored(bits, output);
        break;
      case 1:
        decode_block(bits, fixed_codes(), output);
        break;
      case 2:
        decode_block(bits, read_codes(bits), output);
        break;
      default:
        throw Damaged{};
    }
  }
}

}  // namespace

bool inflate(span<const std::uint8_t> input, span<std::uint8_t> output_bytes) {
  BitReader bits(input);
  Output output(output_bytes);
  try {
    decode_blocks(bits, output);
  } catch (const Damaged&) {
    return false;
  }
  return output.full();
}

}  // namespace eightfold::detail
