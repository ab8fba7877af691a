#pragma once

#include <concepts>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include "mmtrain/core/export.h"

namespace mmtrain {

/// What a configuration key can hold, beside nested objects.
using ConfigValue = std::variant<bool, std::int64_t, double, std::string, std::vector<std::int64_t>,
                                 std::vector<double>, std::vector<std::string>>;

/// One of the types of `ConfigValue`.
template <class T>
concept ConfigType = std::same_as<T, bool> || std::same_as<T, std::int64_t> || std::same_as<T, double> ||
    std::same_as<T, std::string> || std::same_as<T, std::vector<std::int64_t>> ||
    std::same_as<T, std::vector<double>> || std::same_as<T, std::vector<std::string>>;

/// A JSON object of settings that keeps the order of its keys. A null value counts as not given; keys that start
/// with `_comment` are kept in the text but are otherwise invisible. All errors are `ConfigError` and name the source.
class MMTRAIN_API Config {
 public:
  /// An empty object.
  Config();
  Config(const Config& other);
  Config(Config&& other) noexcept;
  Config& operator=(const Config& other);
  Config& operator=(Config&& other) noexcept;
  ~Config();

  /// Reads JSON text; `source` is how errors call it. Throws for anything but one object without repeated keys, with
  /// line and column.
  static Config parse(std::string_view text, std::string_view source = "configuration");
  /// Reads a JSON file.
  static Config load(const std::filesystem::path& path);

  /// Whether `key` has a value other than null.
  bool contains(std::string_view key) const;
  /// Keys in their order, those with null included.
  std::vector<std::string> keys() const;
  /// Value of `key`, nothing where it is absent or null. A whole number may be read as double (in lists too);
  /// every other difference in type throws and names key, wanted and found type.
  template <ConfigType T>
  std::optional<T> get(std::string_view key) const;
  /// The object nested under `key`, nothing where it is absent or null.
  std::optional<Config> sub(std::string_view key) const;

  /// Sets `key`; a new key is appended. Takes every `ConfigType`, other numbers and anything that is text.
  /// A NaN or infinite number cannot be written in JSON and becomes null.
  template <class T>
  requires(!std::same_as<T, Config>) void set(std::string_view key, const T& value) {
    if constexpr (ConfigType<T>) {
      set_value(key, value);
    } else if constexpr (std::is_integral_v<T>) {
      set_value(key, static_cast<std::int64_t>(value));
    } else if constexpr (std::is_floating_point_v<T>) {
      set_value(key, static_cast<double>(value));
    } else {
      set_value(key, std::string(std::string_view(value)));
    }
  }
  /// Sets `key` to a nested object.
  void set(std::string_view key, const Config& value);

  /// Throws for the first key that is not in `known`, naming it and the nearest known one.
  void require_known(const std::vector<std::string>& known) const;
  /// Takes over every key of `other`, nested objects key by key.
  void merge(const Config& other);
  /// The JSON text; `indent` < 0 puts it on one line.
  std::string dump(int indent = 2) const;
  /// How errors call this configuration.
  const std::string& source() const;

 private:
  struct Impl;
  explicit Config(std::unique_ptr<Impl> impl);
  void set_value(std::string_view key, const ConfigValue& value);

  std::unique_ptr<Impl> impl_;
};

extern template std::optional<bool> Config::get<bool>(std::string_view) const;
extern template std::optional<std::int64_t> Config::get<std::int64_t>(std::string_view) const;
extern template std::optional<double> Config::get<double>(std::string_view) const;
extern template std::optional<std::string> Config::get<std::string>(std::string_view) const;
extern template std::optional<std::vector<std::int64_t>> Config::get<std::vector<std::int64_t>>(std::string_view) const;
extern template std::optional<std::vector<double>> Config::get<std::vector<double>>(std::string_view) const;
extern template std::optional<std::vector<std::string>> Config::get<std::vector<std::string>>(std::string_view) const;

/// The candidate with the smallest edit distance to `name` (insertions, deletions, substitutions and swaps of
/// neighbors cost 1; case does not count and '-' equals '_'), the earliest of equals; empty without candidates.
/// For "unknown flag X, did you mean Y".
MMTRAIN_API std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace mmtrain
