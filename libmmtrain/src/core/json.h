#pragma once

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mmtrain::detail {

// Text of unknown origin made fit for a message: at most `longest` bytes, broken UTF-8 repaired, control characters
// blanked, which could otherwise steer a terminal.
inline std::string readable(std::string text, std::size_t longest = 400) {
  if (text.size() > longest) text = text.substr(0, longest) + "...";
  using Json = nlohmann::json;
  text = Json::parse(Json(text).dump(-1, ' ', false, Json::error_handler_t::replace)).get<std::string>();
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7F; }, ' ');
  return text;
}

// What is wrong with a JSON text.
class JsonError : public std::runtime_error {
 public:
  JsonError(std::string place, const std::string& reason)
      : std::runtime_error(readable(reason)), place_(std::move(place)) {}

  // `source:line:column: reason`, the form compilers use; without the place where it is not known.
  std::string in(std::string_view source) const {
    return std::string(source) + (place_.empty() ? "" : ":" + place_) + ": " + what();
  }

 private:
  std::string place_;
};

// `line:column` of the byte at `offset`.
inline std::string json_place(std::string_view text, std::size_t offset) {
  const std::string_view before = text.substr(0, std::min(offset, text.size()));
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  const std::size_t newline = before.rfind('\n');
  const std::size_t column = newline == before.npos ? before.size() + 1 : before.size() - newline;
  return std::to_string(line) + ":" + std::to_string(column);
}

// nlohmann's text without its error number and place.
inline std::string json_reason(std::string_view what) {
  if (const std::size_t end = what.find("] "); end != what.npos) what.remove_prefix(end + 2);
  if (what.starts_with("parse error at")) what.remove_prefix(std::min(what.find(": "), what.size() - 2) + 2);
  return std::string(what);
}

// Parses JSON text and refuses what nlohmann alone would let pass: keys given twice in one object (it keeps one of
// them), text after a NUL byte (it stops there) and nesting deep enough to be an attack.
template <class Json>
Json parse_json(std::string_view text) {
  constexpr int kMaxDepth = 100;
  if (const std::size_t nul = text.find('\0'); nul != text.npos) {
    throw JsonError(json_place(text, nul), "NUL byte");
  }
  std::vector<std::set<std::string>> open_objects;
  const auto check = [&](int depth, typename Json::parse_event_t event, Json& parsed) {
    using Event = typename Json::parse_event_t;
    if (depth > kMaxDepth) throw JsonError("", "nested more than " + std::to_string(kMaxDepth) + " levels deep");
    if (event == Event::object_start) {
      open_objects.emplace_back();
    } else if (event == Event::object_end) {
      open_objects.pop_back();
    } else if (event == Event::key) {
      const auto& key = parsed.template get_ref<const std::string&>();
      if (!open_objects.back().insert(key).second) throw JsonError("", "key \"" + key + "\" is given twice");
    }
    return true;
  };
  try {
    return Json::parse(text, check);
  } catch (const typename Json::parse_error& error) {
    throw JsonError(json_place(text, error.byte == 0 ? 0 : error.byte - 1), json_reason(error.what()));
  } catch (const typename Json::exception& error) {
    throw JsonError("", json_reason(error.what()));
  }
}

}  // namespace mmtrain::detail
