#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace mmtrain::detail {

// What is wrong with a pickle.
struct PickleError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A value of a pickle, or one part of it. Parts are numbers of values in `Pickle::values`: whatever refers to whatever,
// and however deep, nothing is owned twice and nothing recurses.
struct PickleValue {
  enum class Kind : std::uint8_t {
    none,
    boolean,     // `integer`
    integer,     // `integer`
    real,        // `real`
    text,        // `text`
    tuple,       // `items`
    list,        // `items`
    dict,        // `items`: keys and values in turn
    global,      // `text`: module.name
    call,        // `text`: of what, `items`: the tuple of its arguments
    persistent,  // `items`: the tuple that names it
  };
  Kind kind = Kind::none;
  std::int64_t integer = 0;
  double real = 0;
  std::string text = {};
  std::vector<std::uint32_t> items = {};
};

struct Pickle {
  std::vector<PickleValue> values;
  std::uint32_t top = 0;

  const PickleValue& operator[](std::uint32_t value) const { return values[value]; }
};

// Reads a pickle (Python's Lib/pickletools.py describes the format) as data. Nothing is executed: objects come to be
// only of `collections.OrderedDict`, as a dict; calls of other globals, which must be in `globals`, become values of
// kind `call`. The state of a dict's own attributes is left out. Opcodes beyond those that torch.save writes, other
// globals, and more than a million values are refused. Throws `PickleError`.
Pickle read_pickle(std::span<const std::byte> bytes, const std::set<std::string_view>& globals);

// `a dict`, `text`, and so on, for messages.
std::string_view kind_name(PickleValue::Kind kind);

}  // namespace mmtrain::detail
