#include "json_reader.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

namespace eightfold::detail {

using nlohmann::json;

void JsonNode::fail(const std::string& seen, const std::string& allowed) const {
  throw Error(ErrorCode::bundle, source_ + ": " + (place_.empty() ? "it" : place_) + " is " + seen, allowed,
              "make the bundle again, or read it with the eightfold version that wrote it");
}

const json& JsonNode::object() const {
  if (!value_->is_object()) fail("not an object", "a JSON object");
  return *value_;
}

JsonNode JsonNode::at(const std::string& key) const {
  const auto found = object().find(key);
  if (found == value_->end()) JsonNode(*value_, source_, below(key)).fail("missing", "a value");
  return {*found, source_, below(key)};
}

void JsonNode::allow_keys(const std::vector<std::string>& keys) const {
  for (const auto& [key, node] : members()) {
    if (std::find(keys.begin(), keys.end(), key) != keys.end()) continue;
    std::string allowed;
    for (const std::string& known : keys) allowed += (allowed.empty() ? "" : ", ") + known;
    node.fail("a key that this version does not know", allowed);
  }
}

std::string JsonNode::string() const {
  if (!value_->is_string()) fail("not a string", "a string");
  return value_->get<std::string>();
}

bool JsonNode::boolean() const {
  if (!value_->is_boolean()) fail("not true or false", "true or false");
  return value_->get<bool>();
}

double JsonNode::number() const {
  if (!value_->is_number()) fail("not a number", "a number");
  const double number = value_->get<double>();
  if (!std::isfinite(number)) fail("not a finite number", "a number");
  return number;
}

std::int64_t JsonNode::integer(std::int64_t least, std::int64_t most) const {
  const std::string allowed = "a whole number from " + std::to_string(least) + " to " + std::to_string(most);
  const double seen = number();
  // Compared as doubles first: a conversion of what does not fit would be undefined.
  if (!value_->is_number_integer() || seen < static_cast<double>(least) || seen > static_cast<double>(most)) {
    fail(value_->dump(), allowed);
  }
  return static_cast<std::int64_t>(seen);
}

std::vector<JsonNode> JsonNode::items() const {
  if (!value_->is_array()) fail("not a list", "a list");
  std::vector<JsonNode> nodes;
  for (std::size_t i = 0; i < value_->size(); ++i)
    nodes.emplace_back((*value_)[i], source_, below(std::to_string(i)));
  return nodes;
}

std::vector<std::pair<std::string, JsonNode>> JsonNode::members() const {
  std::vector<std::pair<std::string, JsonNode>> nodes;
  for (const auto& [key, value] : object().items())
    nodes.emplace_back(key, JsonNode(value, source_, below(key)));
  return nodes;
}

namespace {

constexpr int kDeepest = 500;

// Watches a document while it is parsed, for what readers take differently: which of two values a key has,
// and how deep they can follow.
class Watch {
 public:
  explicit Watch(const std::string& source) : source_(source) {}

  bool operator()(int depth, json::parse_event_t event, const json& parsed) {
    if (depth > kDeepest) refuse("nested deeper than " + std::to_string(kDeepest) + " levels");
    if (event == json::parse_event_t::object_start) keys_.emplace_back();
    if (event == json::parse_event_t::object_end) keys_.pop_back();
    if (event == json::parse_event_t::key && !keys_.back().insert(parsed.get<std::string>()).second)
      refuse("the key '" + parsed.get<std::string>() + "' occurs twice in one object");
    return true;
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(ErrorCode::bundle, source_ + " is not JSON (" + what + ")", "a JSON document");
  }

  const std::string& source_;
  std::vector<std::set<std::string>> keys_;  // of the objects that are open
};

}  // namespace

json parse_json(const std::string& text, const std::string& source) {
  // The library would skip a byte order mark; RFC 8259 allows no writer to put one.
  if (text.compare(0, 3, "\xef\xbb\xbf") == 0)
    throw Error(ErrorCode::bundle, source + " begins with a byte order mark", "a JSON document");
  // To the library, this one ends the document, whatever follows.
  if (text.find('\0') != std::string::npos)
    throw Error(ErrorCode::bundle, source + " holds a zero byte", "a JSON document");
  try {
    Watch watch(source);
    return json::parse(text, std::ref(watch));
  } catch (const json::exception& error) {
    throw Error(ErrorCode::bundle, source + " is not JSON (" + error.what() + ")", "a JSON document");
  }
}

}  // namespace eightfold::detail
