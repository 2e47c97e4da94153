// Purpose: typed access to JSON that names the place of the first fault: "artifacts.0.batch: ...".
#pragma once

#include <functional>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "eightfold/error.hpp"

namespace eightfold::detail {

// A value of a document, and its place in it. Views the document, which must outlive it.
class JsonNode {
 public:
  JsonNode(const nlohmann::json& value, std::string source, std::string place = "")
      : value_(&value), source_(std::move(source)), place_(std::move(place)) {}

  [[noreturn]] void fail(const std::string& seen, const std::string& allowed) const;

  bool has(const std::string& key) const { return object().find(key) != object().end(); }
  bool is_null() const { return value_->is_null(); }
  JsonNode at(const std::string& key) const;
  // Refuses keys that this version does not know: they could change what the rest means.
  void allow_keys(const std::vector<std::string>& keys) const;

  std::string string() const;
  bool boolean() const;
  double number() const;
  std::int64_t integer(std::int64_t least, std::int64_t most) const;
  std::vector<JsonNode> items() const;
  std::vector<std::pair<std::string, JsonNode>> members() const;
  const nlohmann::json& json() const { return *value_; }

  // The position of a string among the names of an enumeration.
  template <typename Enum>
  Enum one_of(std::initializer_list<std::pair<const char*, Enum>> names) const {
    const std::string seen = string();
    std::string allowed;
    for (const auto& [name, result] : names) {
      if (seen == name) return result;
      allowed += (allowed.empty() ? "" : ", ") + std::string(name);
    }
    fail("'" + seen + "'", allowed);
  }

  template <typename T>
  std::vector<T> each(const std::function<T(const JsonNode&)>& read) const {
    std::vector<T> result;
    for (const JsonNode& item : items()) result.push_back(read(item));
    return result;
  }

 private:
  const nlohmann::json& object() const;
  std::string below(const std::string& key) const { return place_.empty() ? key : place_ + "." + key; }

  const nlohmann::json* value_;
  std::string source_;
  std::string place_;
};

// Throws Error (bundle) when the text is not JSON, or JSON that other readers could take differently.
nlohmann::json parse_json(const std::string& text, const std::string& source);

}  // namespace eightfold::detail
