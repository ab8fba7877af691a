#include "common/cli.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <mmtrain/core/error.h>
#include <mmtrain/device/system_info.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <type_traits>

namespace programs {
namespace {

std::string kebab(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

// Both spellings of a long flag for CLI11: "--batch_size,--batch-size".
std::string spellings(const std::string& name, const std::string& prefix = "--") {
  return kebab(name) == name ? prefix + name : prefix + name + "," + prefix + kebab(name);
}

std::string version_text() {
  const mmtrain::SystemInfo info = mmtrain::collect_system_info();
  return fmt::format("mmtrain {}, LibTorch {}, CUDA {}", info.mmtrain, info.libtorch,
                     info.cuda_build.empty() ? "none" : info.cuda_build);
}

template <class T>
constexpr bool is_list = false;
template <class T>
constexpr bool is_list<std::vector<T>> = true;

// The type a value has in a configuration file.
template <class T>
using Stored = std::conditional_t<std::is_same_v<T, bool> || std::is_same_v<T, double> ||
                                      std::is_same_v<T, std::string> || is_list<T>,
                                  T, std::int64_t>;

}  // namespace

Cli::Cli(const std::string& program, const std::string& description) : app_(description, program) {
  app_.allow_extras();  // refused by ourselves, with the nearest known name
  app_.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);  // a script's flag can be overruled
  app_.get_formatter()->column_width(48);
  app_.add_option("--config", config_path_, "JSON file with options by name; flags win over it")->type_name("FILE");
  app_.add_flag("--print_config,--print-config", print_config_, "print the merged options as JSON and end");
  app_.add_flag("--version", version_, "print the versions of the library, LibTorch and CUDA and end");
}

template <class T>
void Cli::remember(const std::string& name, CLI::Option* option, T& value) {
  entries_.push_back({name, option,
                      [&value](const mmtrain::Config& file, const std::string& key) {
                        const auto stored = file.get<Stored<T>>(key);
                        if (!stored) return;
                        value = static_cast<T>(*stored);
                        if (static_cast<Stored<T>>(value) != *stored) {
                          throw mmtrain::ConfigError(
                              fmt::format("{}: '{}' is out of range: {}", file.source(), key, *stored));
                        }
                      },
                      [name, &value](mmtrain::Config& config) { config.set(name, static_cast<Stored<T>>(value)); }});
}

template <class T>
void Cli::add(const std::string& name, T& value, const std::string& help) {
  if constexpr (std::is_same_v<T, bool>) {
    remember(name, app_.add_flag(spellings(name) + "," + spellings("no_" + name, "!--"), value, help), value);
  } else if constexpr (is_list<T>) {
    CLI::Option* option = app_.add_option(spellings(name), value, help)->capture_default_str();
    remember(name, option->delimiter(',')->multi_option_policy(CLI::MultiOptionPolicy::TakeAll), value);
  } else {
    remember(name, app_.add_option(spellings(name), value, help)->capture_default_str(), value);
  }
}

template void Cli::add(const std::string&, bool&, const std::string&);
template void Cli::add(const std::string&, int&, const std::string&);
template void Cli::add(const std::string&, std::int64_t&, const std::string&);
template void Cli::add(const std::string&, std::uint64_t&, const std::string&);
template void Cli::add(const std::string&, double&, const std::string&);
template void Cli::add(const std::string&, std::string&, const std::string&);
template void Cli::add(const std::string&, std::vector<std::int64_t>&, const std::string&);
template void Cli::add(const std::string&, std::vector<std::string>&, const std::string&);

void Cli::add_alias(const std::string& alias, const std::string& name, std::string& value) {
  CLI::Option* option = app_.add_option(spellings(alias), value, "another name of --" + name);
  remember(alias, option, value);
  entries_.back().alias_of = name;
}

void Cli::add_key(const std::string& key, const std::string& name, const std::string& unset) {
  const std::size_t dot = key.find('.');
  const bool nested = dot != key.npos;
  file_keys_.push_back({nested ? key.substr(0, dot) : "", nested ? key.substr(dot + 1) : key, name, unset});
}

void Cli::add_words(const std::string& name, std::vector<std::string>& value, const std::string& help) {
  app_.add_option(name, value, help)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void Cli::add_optional(const std::string& name, std::string& value, const std::string& implied,
                       const std::string& help) {
  CLI::Option* option = app_.add_option_function<std::vector<std::string>>(
      spellings(name),
      [&value, implied](const std::vector<std::string>& given) {
        value = given.empty() || given.front().empty() ? implied : given.front();
      },
      help);
  option->expected(0, 1)->type_name("[PATH|" + implied + "]");
  remember(name, option, value);
}

void Cli::add_choice(const std::string& name, std::string& value, const std::vector<std::string>& words,
                     const std::string& help) {
  CLI::Option* option = app_.add_option(spellings(name), value, help)->capture_default_str();
  option->type_name(fmt::format("{}", fmt::join(words, "|")));
  remember(name, option, value);
  checks_.push_back([name, &value, words] {
    if (std::find(words.begin(), words.end(), value) != words.end()) return;
    throw mmtrain::ConfigError(fmt::format("--{} must be one of {}, got '{}': did you mean '{}'?", name,
                                           fmt::join(words, ", "), value, mmtrain::nearest_name(value, words)));
  });
}

std::optional<int> Cli::parse(int argc, char** argv) {
  try {
    app_.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    return app_.exit(help);
  } catch (const CLI::ParseError& error) {
    throw mmtrain::ConfigError(fmt::format("{} (see --help)", error.what()));
  }
  if (version_) {
    std::puts(version_text().c_str());
    return 0;
  }
  reject_unknown_flags();
  read_file();
  for (const auto& check : checks_) check();
  if (print_config_) {
    std::puts(values().dump().c_str());
    return 0;
  }
  return std::nullopt;
}

void Cli::reject_unknown_flags() const {
  const std::vector<std::string> unknown = app_.remaining();
  if (unknown.empty()) return;
  std::vector<std::string> known = {"--config", "--print_config", "--version", "--help"};
  for (const Entry& entry : entries_) known.push_back("--" + entry.name);
  if (!unknown.front().starts_with("-")) {
    throw mmtrain::ConfigError(
        fmt::format("unexpected argument '{}': options begin with -- (see --help)", unknown.front()));
  }
  const std::string flag = unknown.front().substr(0, unknown.front().find('='));
  throw mmtrain::ConfigError(
      fmt::format("unknown flag {}: did you mean {}? (see --help)", flag, mmtrain::nearest_name(flag, known)));
}

void Cli::read_file() {
  if (config_path_.empty()) return;
  const mmtrain::Config file = mmtrain::Config::load(config_path_);
  require_known(file);
  for (Entry& entry : entries_) {
    const bool means_another = std::any_of(file_keys_.begin(), file_keys_.end(), [&](const FileKey& key) {
      return key.object.empty() && key.key == entry.name && !file.contains(key.name);
    });
    if (means_another) continue;
    entry.in_file = file.contains(entry.name);
    if (entry.in_file && entry.option->count() == 0) entry.read(file, entry.name);
  }
  for (const FileKey& key : file_keys_) {
    if (file.contains(key.name)) continue;
    const std::optional<mmtrain::Config> object = key.object.empty() ? std::optional(file) : file.sub(key.object);
    if (object && object->contains(key.key)) read_key(key, *object);
  }
}

void Cli::read_key(const FileKey& key, const mmtrain::Config& file) {
  const auto is_unset = [&] {
    try {
      return !key.unset.empty() && file.get<std::string>(key.key) == key.unset;
    } catch (const mmtrain::ConfigError&) {
      return false;  // not a text
    }
  };
  if (is_unset()) return;
  for (Entry& entry : entries_) {
    if (entry.name != key.name) continue;
    entry.in_file = true;
    if (entry.option->count() == 0) entry.read(file, key.key);
  }
}

void Cli::require_known(const mmtrain::Config& file) const {
  std::vector<std::string> known;
  std::map<std::string, std::vector<std::string>> nested;
  for (const Entry& entry : entries_) known.push_back(entry.name);
  for (const FileKey& key : file_keys_) {
    known.push_back(key.object.empty() ? key.key : key.object);
    if (!key.object.empty()) nested[key.object].push_back(key.key);
  }
  file.require_known(known);
  for (const auto& [object, keys] : nested) {
    if (const std::optional<mmtrain::Config> found = file.sub(object)) found->require_known(keys);
  }
}

bool Cli::any_entry(const std::string& name, const std::function<bool(const Entry&)>& holds) const {
  return std::any_of(entries_.begin(), entries_.end(), [&](const Entry& entry) {
    return (entry.name == name || entry.alias_of == name) && holds(entry);
  });
}

bool Cli::given(const std::string& name) const {
  return any_entry(name, [](const Entry& entry) { return entry.in_file || entry.option->count() > 0; });
}

bool Cli::on_command_line(const std::string& name) const {
  return any_entry(name, [](const Entry& entry) { return entry.option->count() > 0; });
}

mmtrain::Config Cli::values() const {
  mmtrain::Config config;
  for (const Entry& entry : entries_) {
    if (entry.alias_of.empty()) entry.write(config);
  }
  return config;
}

}  // namespace programs
