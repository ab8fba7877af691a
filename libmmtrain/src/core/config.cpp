#include "mmtrain/core/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <fstream>
#include <iterator>
#include <limits>
#include <utility>

#include "core/json.h"
#include "mmtrain/core/error.h"

namespace mmtrain {
namespace {

using Json = nlohmann::ordered_json;

bool is_comment(std::string_view key) { return key.starts_with("_comment"); }

template <class T>
constexpr std::string_view kWanted = "";
template <>
constexpr std::string_view kWanted<bool> = "true or false";
template <>
constexpr std::string_view kWanted<std::int64_t> = "a whole number";
template <>
constexpr std::string_view kWanted<double> = "a number";
template <>
constexpr std::string_view kWanted<std::string> = "a string";
template <>
constexpr std::string_view kWanted<std::vector<std::int64_t>> = "a list of whole numbers";
template <>
constexpr std::string_view kWanted<std::vector<double>> = "a list of numbers";
template <>
constexpr std::string_view kWanted<std::vector<std::string>> = "a list of strings";

std::string describe(const Json& value) {
  constexpr std::size_t kLongest = 60;
  const std::string text = detail::readable(value.dump(-1, ' ', false, Json::error_handler_t::replace), kLongest);
  const char* kind = value.is_boolean()          ? "the truth value"
                     : value.is_number_integer() ? "the whole number"
                     : value.is_number()         ? "the number"
                     : value.is_string()         ? "the string"
                     : value.is_array()          ? "the list"
                                                 : "the object";
  return fmt::format("{} {}", kind, text);
}

bool fits_int64(const Json& value) {
  return value.is_number_integer() &&
         (!value.is_number_unsigned() ||
          value.get<std::uint64_t>() <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()));
}

bool has_type(const Json& value, bool*) { return value.is_boolean(); }
bool has_type(const Json& value, std::int64_t*) { return fits_int64(value); }
bool has_type(const Json& value, double*) { return value.is_number(); }
bool has_type(const Json& value, std::string*) { return value.is_string(); }
template <class T>
bool has_type(const Json& value, std::vector<T>*) {
  return value.is_array() && std::all_of(value.begin(), value.end(),
                                         [](const Json& item) { return has_type(item, static_cast<T*>(nullptr)); });
}

std::string normal(std::string_view name) {
  std::string result(name);
  for (char& c : result) c = c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

// Optimal string alignment distance over three rolling rows.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::array<std::vector<std::size_t>, 3> rows;
  rows.fill(std::vector<std::size_t>(b.size() + 1));
  auto& [two_back, previous, current] = rows;
  for (std::size_t j = 0; j <= b.size(); ++j) previous[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    current[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      current[j] = std::min({previous[j] + 1, current[j - 1] + 1, previous[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        current[j] = std::min(current[j], two_back[j - 2] + 1);
      }
    }
    std::swap(two_back, previous);
    std::swap(previous, current);
  }
  return previous[b.size()];
}

void merge_objects(Json& into, const Json& from) {
  for (const auto& [key, value] : from.items()) {
    if (is_comment(key)) continue;
    Json& slot = into[key];
    if (slot.is_object() && value.is_object()) {
      merge_objects(slot, value);
    } else {
      slot = value;
    }
  }
}

}  // namespace

struct Config::Impl {
  Json object = Json::object();
  std::string source = "configuration";
  std::string prefix;  // of key names in messages: `outer.` inside the object `outer`

  const Json* find(std::string_view key) const {
    const auto found = object.find(key);
    return found == object.end() || found->is_null() ? nullptr : &*found;
  }

  ConfigError wrong_type(std::string_view key, std::string_view wanted, const Json& found) const {
    return ConfigError(
        fmt::format("[Config] {}: '{}{}' must be {}, got {}", source, prefix, key, wanted, describe(found)));
  }
};

Config::Config() : impl_(std::make_unique<Impl>()) {}
Config::Config(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Config::Config(const Config& other) : impl_(std::make_unique<Impl>(*other.impl_)) {}
Config::Config(Config&& other) noexcept = default;
Config& Config::operator=(const Config& other) {
  if (this != &other) impl_ = std::make_unique<Impl>(*other.impl_);
  return *this;
}
Config& Config::operator=(Config&& other) noexcept = default;
Config::~Config() = default;

Config Config::parse(std::string_view text, std::string_view source) {
  auto impl = std::make_unique<Impl>();
  impl->source = source;
  try {
    impl->object = detail::parse_json<Json>(text);
  } catch (const detail::JsonError& error) {
    throw ConfigError(fmt::format("[Config] {}", error.in(source)));
  }
  if (!impl->object.is_object()) {
    throw ConfigError(fmt::format("[Config] {}: must hold one JSON object, got {}", source, describe(impl->object)));
  }
  return Config(std::move(impl));
}

Config Config::load(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::error_code error;
  if (!file || std::filesystem::is_directory(path, error)) {
    throw ConfigError(fmt::format("[Config] cannot read '{}': {}", path.string(),
                                  std::filesystem::exists(path, error) ? "not a readable file" : "no such file"));
  }
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  return parse(text, path.string());
}

bool Config::contains(std::string_view key) const { return impl_->find(key) != nullptr; }

std::vector<std::string> Config::keys() const {
  std::vector<std::string> result;
  for (const auto& [key, value] : impl_->object.items()) {
    if (!is_comment(key)) result.push_back(key);
  }
  return result;
}

template <ConfigType T>
std::optional<T> Config::get(std::string_view key) const {
  const Json* value = impl_->find(key);
  if (value == nullptr) return std::nullopt;
  if (!has_type(*value, static_cast<T*>(nullptr))) throw impl_->wrong_type(key, kWanted<T>, *value);
  return value->get<T>();
}

template MMTRAIN_API std::optional<bool> Config::get<bool>(std::string_view) const;
template MMTRAIN_API std::optional<std::int64_t> Config::get<std::int64_t>(std::string_view) const;
template MMTRAIN_API std::optional<double> Config::get<double>(std::string_view) const;
template MMTRAIN_API std::optional<std::string> Config::get<std::string>(std::string_view) const;
template MMTRAIN_API std::optional<std::vector<std::int64_t>> Config::get<std::vector<std::int64_t>>(
    std::string_view) const;
template MMTRAIN_API std::optional<std::vector<double>> Config::get<std::vector<double>>(std::string_view) const;
template MMTRAIN_API std::optional<std::vector<std::string>> Config::get<std::vector<std::string>>(
    std::string_view) const;

std::optional<Config> Config::sub(std::string_view key) const {
  const Json* value = impl_->find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_object()) throw impl_->wrong_type(key, "an object", *value);
  return Config(std::make_unique<Impl>(Impl{*value, impl_->source, fmt::format("{}{}.", impl_->prefix, key)}));
}

void Config::set_value(std::string_view key, const ConfigValue& value) {
  std::visit([&](const auto& held) { impl_->object[std::string(key)] = held; }, value);
}

void Config::set(std::string_view key, const Config& value) { impl_->object[std::string(key)] = value.impl_->object; }

void Config::require_known(const std::vector<std::string>& known) const {
  for (const std::string& key : keys()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    const std::string nearest = nearest_name(key, known);
    throw ConfigError(fmt::format("[Config] {}: unknown key '{}{}'; {}", impl_->source, impl_->prefix, key,
                                  nearest.empty()
                                      ? "no key is known here"
                                      : fmt::format("the nearest known one is '{}{}'", impl_->prefix, nearest)));
  }
}

void Config::merge(const Config& other) { merge_objects(impl_->object, other.impl_->object); }

std::string Config::dump(int indent) const {
  return impl_->object.dump(indent, ' ', false, Json::error_handler_t::replace);
}

const std::string& Config::source() const { return impl_->source; }

std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates) {
  const std::string wanted = normal(name);
  const auto nearest = std::min_element(candidates.begin(), candidates.end(), [&](const auto& a, const auto& b) {
    return edit_distance(wanted, normal(a)) < edit_distance(wanted, normal(b));
  });
  return nearest == candidates.end() ? std::string() : *nearest;
}

}  // namespace mmtrain
