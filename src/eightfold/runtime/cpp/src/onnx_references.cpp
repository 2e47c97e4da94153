#include "onnx_references.hpp"

#include <algorithm>
#include <map>

namespace eightfold::detail {
namespace {

enum class Message { model, training, graph, function, node, attribute, sparse_tensor, tensor, entry, other };

// onnx.proto: the message in a field, for every way that leads to a tensor's external data.
Message inner(Message message, std::uint64_t field) {
  using Ways = std::map<std::uint64_t, Message>;
  static const std::map<Message, Ways> ways = {
      {Message::model, {{7, Message::graph}, {20, Message::training}, {25, Message::function}}},
      {Message::training, {{1, Message::graph}, {2, Message::graph}}},
      {Message::graph, {{1, Message::node}, {5, Message::tensor}, {15, Message::sparse_tensor}}},
      {Message::function, {{7, Message::node}, {11, Message::attribute}}},
      {Message::node, {{5, Message::attribute}}},
      {Message::attribute,
       {{5, Message::tensor},
        {6, Message::graph},
        {10, Message::tensor},
        {11, Message::graph},
        {22, Message::sparse_tensor},
        {23, Message::sparse_tensor}}},
      {Message::sparse_tensor, {{1, Message::tensor}, {2, Message::tensor}}},
      {Message::tensor, {{13, Message::entry}}},
  };
  const auto found = ways.find(message);
  if (found == ways.end()) return Message::other;
  const auto way = found->second.find(field);
  return way == found->second.end() ? Message::other : way->second;
}

constexpr std::uint64_t kEntryKey = 1;
constexpr std::uint64_t kEntryValue = 2;
constexpr std::size_t kLongestEntryBytes = 1 << 16;
// Some twenty times what the largest real graphs have.
constexpr std::size_t kMostFields = 2'000'000;

using Bytes = span<const std::uint8_t>;

struct Field {
  std::uint64_t number = 0;  // 0 for fields that are not sized
  Bytes bytes;
};

// Reads the fields of one message.
class Fields {
 public:
  explicit Fields(Bytes message) : left_(message) {}

  bool next(Field& field) {
    if (left_.empty()) return false;
    const std::uint64_t tag = varint();
    if (tag >> 3 == 0 || tag >> 32 != 0) throw NotOnnx("a field has no number");
    field = {};
    switch (tag & 7) {
      case 0:
        varint();
        break;
      case 1:
        take(8);
        break;
      case 2:
        field = {tag >> 3, take(varint())};
        break;
      case 5:
        take(4);
        break;
      default:  // the groups of old do not occur in ONNX
        throw NotOnnx("a field has wire type " + std::to_string(tag & 7));
    }
    return true;
  }

 private:
  Bytes take(std::uint64_t count) {
    if (count > left_.size()) throw NotOnnx("a field is cut off");
    const Bytes taken = left_.subspan(0, count);
    left_ = left_.subspan(count, left_.size() - count);
    return taken;
  }

  std::uint64_t varint() {
    constexpr std::size_t longest = 10;
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < std::min(left_.size(), longest); ++i) {
      const std::uint64_t bits = left_[i] & 0x7fU;
      // The tenth byte has room for one bit; more would be lost, so that the number would be another one.
      if (i + 1 == longest && bits > 1) throw NotOnnx("a number is too large");
      value |= bits << (7 * i);
      if (left_[i] < 0x80) {
        take(i + 1);
        return value;
      }
    }
    throw NotOnnx("a number is cut off");
  }

  Bytes left_;
};

using Words = std::map<std::string, std::string>;

std::string text_of(Bytes bytes) { return {bytes.begin(), bytes.end()}; }

// Adds a key and its value. Of a field that occurs twice the last counts, as in protobuf.
void read_entry(Bytes entry, Words& words) {
  if (entry.size() > kLongestEntryBytes) throw NotOnnx("the location of a tensor takes too many bytes");
  std::string key;
  std::string value;
  Fields fields(entry);
  for (Field field; fields.next(field);) {
    if (field.number == kEntryKey) key = text_of(field.bytes);
    if (field.number == kEntryValue) value = text_of(field.bytes);
  }
  if (!words.emplace(key, value).second) throw NotOnnx("a tensor does not state its location exactly once");
}

std::uint64_t number_of(const Words& words, const std::string& key) {
  const auto found = words.find(key);
  if (found == words.end()) return 0;
  const std::string& text = found->second;
  constexpr std::size_t longest = 18;  // so that two of them can be added
  if (text.empty() || text.size() > longest || text.find_first_not_of("0123456789") != std::string::npos) {
    throw NotOnnx("the " + key + " of a tensor is '" + text.substr(0, 40) + "'");
  }
  return std::stoull(text);
}

OnnxReference reference_of(const Words& words) {
  const auto location = words.find("location");
  if (location == words.end() || location->second.empty())
    throw NotOnnx("a tensor does not state its location exactly once");
  return {location->second, number_of(words, "offset"), number_of(words, "length")};
}

struct Part {
  Message message;
  Bytes bytes;
};

// Adds what is inside `part` to `waiting`, and its fields to `count`.
void look_into(const Part& part, std::vector<Part>& waiting, std::vector<OnnxReference>& found,
               std::size_t& count) {
  Words words;
  Fields fields(part.bytes);
  for (Field field; fields.next(field);) {
    if (++count > kMostFields) throw NotOnnx("it has more than " + std::to_string(kMostFields) + " fields");
    const Message message = inner(part.message, field.number);
    if (message == Message::entry) {
      read_entry(field.bytes, words);
    } else if (message != Message::other) {
      waiting.push_back({message, field.bytes});
    }
  }
  if (!words.empty()) found.push_back(reference_of(words));
}

}  // namespace

std::vector<OnnxReference> references_in(span<const std::uint8_t> model) {
  if (model.empty()) throw NotOnnx("it is empty");
  std::vector<OnnxReference> found;
  std::vector<Part> waiting = {{Message::model, model}};
  for (std::size_t count = 0; !waiting.empty();) {
    const Part part = waiting.back();
    waiting.pop_back();
    look_into(part, waiting, found, count);
  }
  return found;
}

}  // namespace eightfold::detail
