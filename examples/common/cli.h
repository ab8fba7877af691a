#pragma once

#include <mmtrain/core/config.h>
#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace programs {

/// Flags and configuration keys of a program, declared once. Every option is a flag in both spellings
/// (`--batch_size`, `--batch-size`) and a key of the `--config` file. Precedence: defaults < file < flags.
/// Adds `--config`, `--print-config` and `--version` itself.
class Cli {
 public:
  Cli(const std::string& program, const std::string& description);

  /// Declares an option bound to `value`, whose present content is the default. T: bool, int, std::int64_t, double,
  /// std::string, std::uint64_t, and lists of std::int64_t and std::string, whose words follow one another or are
  /// joined by commas.
  template <class T>
  void add(const std::string& name, T& value, const std::string& help);

  /// A text option whose value may be left out: `--resume` alone means `implied`.
  void add_optional(const std::string& name, std::string& value, const std::string& implied, const std::string& help);

  /// One of a few words.
  void add_choice(const std::string& name, std::string& value, const std::vector<std::string>& words,
                  const std::string& help);

  /// Another name of the text option `name`, which is bound to `value`.
  void add_alias(const std::string& alias, const std::string& name, std::string& value);

  /// A key of the file that stands for option `name` there: one called otherwise, or one of a nested object,
  /// `dataloader_params.num_workers`. It does not count where the file has `name` itself, nor with the value `unset`.
  void add_key(const std::string& key, const std::string& name, const std::string& unset = "");

  /// The words that are no flags, e.g. file names; without a call of this they are refused.
  void add_words(const std::string& name, std::vector<std::string>& value, const std::string& help);

  /// Reads the command line. Returns an exit code if the program is done (`--help`, `--version`, `--print-config`);
  /// throws `mmtrain::ConfigError` for wrong flags, keys and values.
  std::optional<int> parse(int argc, char** argv);

  /// Whether the option was given, by flag or file, rather than left at its default.
  bool given(const std::string& name) const;

  /// Whether it was given by flag: what is a demand there is a wish in a file.
  bool on_command_line(const std::string& name) const;

  /// All options with their values as they stand now.
  mmtrain::Config values() const;

 private:
  struct Entry {
    std::string name;
    CLI::Option* option;
    std::function<void(const mmtrain::Config&, const std::string& key)> read;
    std::function<void(mmtrain::Config&)> write;
    bool in_file = false;
    std::string alias_of = {};
  };

  // A key of the file by another name or in a nested object, whose name is empty at the top.
  struct FileKey {
    std::string object, key, name, unset;
  };

  template <class T>
  void remember(const std::string& name, CLI::Option* option, T& value);
  bool any_entry(const std::string& name, const std::function<bool(const Entry&)>& holds) const;
  void reject_unknown_flags() const;
  void read_file();
  void read_key(const FileKey& key, const mmtrain::Config& file);
  void require_known(const mmtrain::Config& file) const;

  CLI::App app_;
  std::vector<Entry> entries_;
  std::vector<FileKey> file_keys_;
  std::vector<std::function<void()>> checks_;  // run when flags and file have both been read
  std::string config_path_;
  bool print_config_ = false, version_ = false;
};

}  // namespace programs
