#include "io/pickle.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "core/json.h"

namespace mmtrain::detail {
namespace {

using Kind = PickleValue::Kind;

constexpr std::size_t kMaxValues = 1'000'000;  // a state dict of 10,000 tensors has some 200,000
constexpr std::size_t kMaxDepth = 1000;        // of containers that are being written
constexpr std::string_view kOrderedDict = "collections.OrderedDict";

template <class... Args>
[[noreturn]] void reject(fmt::format_string<Args...> format, Args&&... args) {
  throw PickleError(readable(fmt::format(format, std::forward<Args>(args)...)));
}

class Unpickler {
 public:
  Unpickler(std::span<const std::byte> bytes, const std::set<std::string_view>& globals)
      : bytes_(bytes), globals_(globals) {}

  Pickle read() {
    for (;;) {
      const auto opcode = static_cast<char>(take(1)[0]);
      if (opcode == '.') break;
      step(opcode);
      if (stack_.size() > kMaxValues || memo_.size() > kMaxValues || result_.values.size() > kMaxValues) {
        reject("more than {} values", kMaxValues);
      }
    }
    result_.top = pop();
    if (!stack_.empty() || !marks_.empty()) reject("byte {}: values are left over", position_);
    return std::move(result_);
  }

 private:
  std::span<const std::byte> take(std::uint64_t count) {
    if (count > bytes_.size() - position_) reject("truncated at byte {}", bytes_.size());
    const auto taken = bytes_.subspan(position_, count);
    position_ += count;
    return taken;
  }

  // Little-endian, of at most 8 bytes.
  std::uint64_t number(std::size_t count) {
    std::uint64_t value = 0;
    std::memcpy(&value, take(count).data(), count);
    return value;
  }

  std::string text(std::uint64_t count) {
    const auto taken = take(count);
    return {reinterpret_cast<const char*>(taken.data()), taken.size()};
  }

  std::string line() {
    std::string result;
    for (char c; (c = static_cast<char>(take(1)[0])) != '\n';) result += c;
    return result;
  }

  void push(PickleValue value) {
    stack_.push_back(static_cast<std::uint32_t>(result_.values.size()));
    result_.values.push_back(std::move(value));
  }

  // What lies above the innermost mark is its own.
  std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }

  std::uint32_t pop() {
    if (stack_.size() <= floor()) reject("byte {}: a value is missing", position_);
    const std::uint32_t value = stack_.back();
    stack_.pop_back();
    return value;
  }

  std::vector<std::uint32_t> pop(std::size_t count) {
    if (stack_.size() - floor() < count) reject("byte {}: a value is missing", position_);
    std::vector<std::uint32_t> values(stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
    stack_.resize(stack_.size() - count);
    return values;
  }

  std::vector<std::uint32_t> pop_to_mark() {
    if (marks_.empty()) reject("byte {}: a mark is missing", position_);
    std::vector<std::uint32_t> values = pop(stack_.size() - marks_.back());
    marks_.pop_back();
    return values;
  }

  PickleValue& top(Kind kind) {
    if (stack_.size() <= floor()) reject("byte {}: a value is missing", position_);
    PickleValue& value = result_.values[stack_.back()];
    if (value.kind != kind) {
      reject("byte {}: {} is changed as if it were {}", position_, kind_name(value.kind), kind_name(kind));
    }
    return value;
  }

  void extend(Kind kind, const std::vector<std::uint32_t>& items) {
    if (kind == Kind::dict && items.size() % 2 != 0) reject("byte {}: a key without a value", position_);
    PickleValue& container = top(kind);
    container.items.insert(container.items.end(), items.begin(), items.end());
  }

  void remember(std::uint64_t key) {
    const std::uint32_t value = pop();
    stack_.push_back(value);
    memo_[key] = value;
  }

  void recall(std::uint64_t key) {
    const auto found = memo_.find(key);
    if (found == memo_.end()) reject("byte {}: nothing was remembered as {}", position_, key);
    stack_.push_back(found->second);
  }

  void push_global(const std::string& module, const std::string& name) {
    const std::string global = module + "." + name;
    if (global != kOrderedDict && !globals_.contains(global)) {
      reject(
          "it refers to '{}'; only what torch.save(module.state_dict(), path) writes is read, and nothing in a file "
          "is ever executed",
          global);
    }
    push({.kind = Kind::global, .text = global});
  }

  void call() {
    const std::uint32_t arguments = pop();
    const PickleValue &given = result_.values[arguments], &callee = result_.values[pop()];
    if (callee.kind != Kind::global || given.kind != Kind::tuple) {
      reject("byte {}: {} is called with {}", position_, kind_name(callee.kind), kind_name(given.kind));
    }
    if (callee.text != kOrderedDict) return push({.kind = Kind::call, .text = callee.text, .items = {arguments}});
    if (!given.items.empty()) reject("byte {}: an OrderedDict is made with arguments", position_);
    push({.kind = Kind::dict});
  }

  void push_integer(std::int64_t value) { push({.kind = Kind::integer, .integer = value}); }

  void push_long() {
    const std::uint64_t count = number(1);
    if (count > sizeof(std::int64_t)) reject("byte {}: a number of {} bytes", position_, count);
    std::uint64_t value = number(count);
    // The last byte carries the sign.
    if (count > 0 && count < sizeof value && (value >> (8 * count - 1)) != 0) value |= ~std::uint64_t{0} << (8 * count);
    push_integer(static_cast<std::int64_t>(value));
  }

  void push_real() {
    std::uint64_t bits = 0;
    for (const std::byte byte : take(sizeof bits)) bits = bits << 8 | std::to_integer<std::uint64_t>(byte);
    push({.kind = Kind::real, .real = std::bit_cast<double>(bits)});
  }

  void step(char opcode) {
    switch (static_cast<unsigned char>(opcode)) {
      case 0x80:  // protocol
        if (const std::uint64_t protocol = number(1); protocol < 2 || protocol > 5) {
          reject("pickle protocol {} is not known", protocol);
        }
        return;
      case 0x95:  // a frame: how many bytes to read at once
        take(8);
        return;
      case 'N':
        return push({});
      case 0x88:
      case 0x89:
        return push({.kind = Kind::boolean, .integer = opcode == '\x88'});
      case 'K':
        return push_integer(static_cast<std::int64_t>(number(1)));
      case 'M':
        return push_integer(static_cast<std::int64_t>(number(2)));
      case 'J':
        return push_integer(static_cast<std::int32_t>(number(4)));
      case 0x8a:
        return push_long();
      case 'G':
        return push_real();
      case 'X':
        return push({.kind = Kind::text, .text = text(number(4))});
      case 0x8c:
        return push({.kind = Kind::text, .text = text(number(1))});
      case ')':
        return push({.kind = Kind::tuple});
      case ']':
        return push({.kind = Kind::list});
      case '}':
        return push({.kind = Kind::dict});
      case '(':
        if (marks_.size() == kMaxDepth) reject("nested deeper than {}", kMaxDepth);
        marks_.push_back(stack_.size());
        return;
      case 't':
        return push({.kind = Kind::tuple, .items = pop_to_mark()});
      case 0x85:
      case 0x86:
      case 0x87:
        return push({.kind = Kind::tuple, .items = pop(static_cast<unsigned char>(opcode) - 0x84U)});
      case 'a':
        return extend(Kind::list, pop(1));
      case 'e':
        return extend(Kind::list, pop_to_mark());
      case 's':
        return extend(Kind::dict, pop(2));
      case 'u':
        return extend(Kind::dict, pop_to_mark());
      case 'c': {
        const std::string module = line();
        return push_global(module, line());
      }
      case 0x93: {
        const auto names = pop(2);
        const PickleValue &module = result_[names[0]], &name = result_[names[1]];
        if (module.kind != Kind::text || name.kind != Kind::text) reject("byte {}: a global without a name", position_);
        return push_global(module.text, name.text);
      }
      case 'R':
        return call();
      case 'b':  // attributes of a dict, such as _metadata, or of a tensor's
        pop();
        top(Kind::dict);
        return;
      case 'Q': {
        const std::uint32_t name = pop();
        if (result_[name].kind != Kind::tuple) reject("byte {}: a persistent object without a tuple", position_);
        return push({.kind = Kind::persistent, .items = {name}});
      }
      case 'q':
        return remember(number(1));
      case 'r':
        return remember(number(4));
      case 0x94:
        return remember(memo_.size());
      case 'h':
        return recall(number(1));
      case 'j':
        return recall(number(4));
      default:
        reject("byte {}: opcode 0x{:02x} is none of those that torch.save writes", position_ - 1,
               static_cast<unsigned char>(opcode));
    }
  }

  std::span<const std::byte> bytes_;
  const std::set<std::string_view>& globals_;
  std::size_t position_ = 0;
  std::vector<std::uint32_t> stack_;
  std::vector<std::size_t> marks_;  // sizes of the stack
  std::unordered_map<std::uint64_t, std::uint32_t> memo_;
  Pickle result_;
};

}  // namespace

std::string_view kind_name(Kind kind) {
  switch (kind) {
    case Kind::none:
      return "None";
    case Kind::boolean:
      return "a truth value";
    case Kind::integer:
    case Kind::real:
      return "a number";
    case Kind::text:
      return "text";
    case Kind::tuple:
      return "a tuple";
    case Kind::list:
      return "a list";
    case Kind::dict:
      return "a dict";
    case Kind::global:
      return "a global";
    case Kind::call:
      return "an object";
    case Kind::persistent:
      return "a storage";
  }
  return "a value";
}

Pickle read_pickle(std::span<const std::byte> bytes, const std::set<std::string_view>& globals) {
  return Unpickler(bytes, globals).read();
}

}  // namespace mmtrain::detail
