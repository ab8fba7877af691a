#include "mmtrain/io/pth_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/types.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "core/json.h"
#include "io/pickle.h"
#include "io/zip.h"
#include "mmtrain/core/error.h"
#include "mmtrain/io/mapped_file.h"

namespace mmtrain {
namespace {

using detail::kind_name;
using detail::Pickle;
using detail::PickleValue;
using Kind = PickleValue::Kind;

constexpr std::string_view kZipStart("PK\x03\x04", 4);
constexpr std::string_view kLegacyStart("\x80\x02\x8a\x0al\xfc", 6);  // a pickle of the old format's magic number
constexpr std::string_view kTensor = "torch._utils._rebuild_tensor_v2";
constexpr std::string_view kParameter = "torch._utils._rebuild_parameter";
constexpr std::size_t kMaxPickle = std::size_t{64} << 20;
constexpr std::size_t kMaxDimensions = 64;

constexpr std::array<std::pair<std::string_view, torch::ScalarType>, 12> kStorages{{
    {"torch.FloatStorage", torch::kFloat32},
    {"torch.DoubleStorage", torch::kFloat64},
    {"torch.HalfStorage", torch::kFloat16},
    {"torch.BFloat16Storage", torch::kBFloat16},
    {"torch.LongStorage", torch::kInt64},
    {"torch.IntStorage", torch::kInt32},
    {"torch.ShortStorage", torch::kInt16},
    {"torch.CharStorage", torch::kInt8},
    {"torch.ByteStorage", torch::kUInt8},
    {"torch.BoolStorage", torch::kBool},
    {"torch.ComplexFloatStorage", torch::kComplexFloat},
    {"torch.ComplexDoubleStorage", torch::kComplexDouble},
}};

const std::set<std::string_view>& known_globals() {
  static const std::set<std::string_view> globals = [] {
    std::set<std::string_view> names{kTensor, kParameter};
    for (const auto& storage : kStorages) names.insert(storage.first);
    return names;
  }();
  return globals;
}

// A reason without the file, which load_pth adds.
struct Malformed {
  std::string reason;
};

template <class... Args>
[[noreturn]] void reject(fmt::format_string<Args...> format, Args&&... args) {
  throw Malformed{detail::readable(fmt::format(format, std::forward<Args>(args)...))};
}

class PthReader {
 public:
  PthReader(std::shared_ptr<const MappedFile> file, TensorLoad load) : file_(std::move(file)), load_(load) {}

  StateDict read() {
    open_archive();
    const auto pickle = record("data.pkl");
    if (pickle.size() > kMaxPickle) reject("data.pkl has {} bytes, the limit is {}", pickle.size(), kMaxPickle);
    pickle_ = detail::read_pickle(pickle, known_globals());
    StateDict result;
    const PickleValue& dict = find_state_dict();
    result.reserve(dict.items.size() / 2);
    for (std::size_t i = 0; i < dict.items.size(); i += 2) {
      const PickleValue &key = pickle_[dict.items[i]], &value = pickle_[dict.items[i + 1]];
      if (key.kind != Kind::text) reject("the state dict has {} as a key", kind_name(key.kind));
      const PickleValue* called = tensor_call(value);
      if (called == nullptr && key.text.ends_with("_extra_state")) continue;
      if (called == nullptr) reject("'{}' is {}, not a tensor", key.text, kind_name(value.kind));
      if (result.contains(key.text)) reject("the state dict has '{}' twice", key.text);
      result.insert(key.text, tensor(key.text, *called));
    }
    return result;
  }

 private:
  void open_archive() {
    const auto bytes = file_->bytes();
    const std::string_view start(reinterpret_cast<const char*>(bytes.data()), std::min<std::size_t>(bytes.size(), 8));
    if (start.starts_with(kLegacyStart)) {
      reject(
          "it has the format before PyTorch 1.6, which is not read; convert it in Python: torch.save(torch.load(path, "
          "weights_only=True), path)");
    }
    if (!start.starts_with(kZipStart)) reject("it is no zip archive, as torch.save writes them");
    for (detail::ZipEntry& entry : detail::read_zip(bytes)) {
      constexpr std::string_view kPickle = "/data.pkl";
      if (entry.name.ends_with(kPickle) && entry.name.find('/') == entry.name.size() - kPickle.size()) {
        root_ = entry.name.substr(0, entry.name.size() - kPickle.size() + 1);
      }
      records_.emplace(std::move(entry.name), entry.data);
    }
    if (root_.empty()) reject("it is an archive without data.pkl, not one of torch.save");
    if (const auto order = records_.find(root_ + "byteorder"); order != records_.end()) {
      const std::string_view text(reinterpret_cast<const char*>(order->second.data()), order->second.size());
      if (text != "little") reject("its byte order is '{}', only little is read", text);
    }
  }

  std::span<const std::byte> record(const std::string& name) const {
    const auto found = records_.find(root_ + name);
    if (found == records_.end()) reject("the archive lacks '{}'", root_ + name);
    return found->second;
  }

  // The top value, or the dict in it that checkpoints hold the state dict in.
  const PickleValue& find_state_dict() const {
    const PickleValue& top = pickle_[pickle_.top];
    if (top.kind != Kind::dict)
      reject("it holds {}, not a state dict", tensor_call(top) ? "a tensor" : kind_name(top.kind));
    for (const std::string_view name : {"state_dict", "model_state_dict", "model"}) {
      for (std::size_t i = 0; i < top.items.size(); i += 2) {
        const PickleValue &key = pickle_[top.items[i]], &value = pickle_[top.items[i + 1]];
        if (key.kind == Kind::text && key.text == name && value.kind == Kind::dict) return value;
      }
    }
    return top;
  }

  // Arguments of a call, or what names a persistent object.
  const std::vector<std::uint32_t>& parts(const PickleValue& value) const { return pickle_[value.items[0]].items; }

  // The call that makes the tensor which `value` is, itself or in a parameter; null if it is none.
  const PickleValue* tensor_call(const PickleValue& value) const {
    const PickleValue* call = &value;
    if (call->kind == Kind::call && call->text == kParameter && !parts(*call).empty()) call = &pickle_[parts(*call)[0]];
    return call->kind == Kind::call && call->text == kTensor ? call : nullptr;
  }

  std::vector<std::int64_t> whole_numbers(const std::string& name, const PickleValue& value) const {
    if (value.kind != Kind::tuple || value.items.size() > kMaxDimensions) {
      reject("tensor '{}': sizes and strides must be tuples of at most {} numbers", name, kMaxDimensions);
    }
    std::vector<std::int64_t> numbers;
    for (const std::uint32_t item : value.items) numbers.push_back(whole_number(name, pickle_[item]));
    return numbers;
  }

  static std::int64_t whole_number(const std::string& name, const PickleValue& value) {
    if (value.kind != Kind::integer || value.integer < 0) {
      reject("tensor '{}': sizes, strides and offset must be whole numbers from 0", name);
    }
    return value.integer;
  }

  // _rebuild_tensor_v2(storage, offset, sizes, strides, requires_grad, hooks[, metadata]).
  torch::Tensor tensor(const std::string& name, const PickleValue& call) {
    const auto& made_of = parts(call);
    if (made_of.size() < 4) reject("tensor '{}' is made of {} parts", name, made_of.size());
    const torch::Tensor base = storage(name, pickle_[made_of[0]]);
    const std::int64_t offset = whole_number(name, pickle_[made_of[1]]);
    const auto sizes = whole_numbers(name, pickle_[made_of[2]]);
    const auto strides = whole_numbers(name, pickle_[made_of[3]]);
    if (sizes.size() != strides.size()) reject("tensor '{}': {} sizes, {} strides", name, sizes.size(), strides.size());
    check_extent(name, base, offset, sizes, strides);
    return base.as_strided(sizes, strides, offset);
  }

  void check_extent(const std::string& name, const torch::Tensor& base, std::int64_t offset,
                    const std::vector<std::int64_t>& sizes, const std::vector<std::int64_t>& strides) const {
    // A tensor may repeat its storage (stride 0), but not to more bytes than the whole file has.
    __extension__ typedef __int128 Wide;  // no product of two 64-bit numbers overflows
    const auto most = static_cast<Wide>(file_->bytes().size());
    Wide elements = 1, last = offset;
    const bool empty = std::find(sizes.begin(), sizes.end(), 0) != sizes.end();
    for (std::size_t d = 0; d < sizes.size() && !empty; ++d) {
      elements *= sizes[d];
      last += static_cast<Wide>(sizes[d] - 1) * strides[d];
      if (elements > most || last >= base.numel()) break;
    }
    if (empty ? offset > base.numel() : last >= base.numel() || elements * base.element_size() > most) {
      reject("tensor '{}': sizes [{}] with strides [{}] at {} do not lie in its storage of {}", name,
             fmt::join(sizes, ","), fmt::join(strides, ","), offset, base.numel());
    }
  }

  // ('storage', its type, the record's name, where it lived, number of elements).
  torch::Tensor storage(const std::string& name, const PickleValue& value) {
    if (value.kind != Kind::persistent || parts(value).size() != 5) reject("tensor '{}' has no storage", name);
    const auto part = [&](std::size_t i, Kind kind) -> const PickleValue& {
      const PickleValue& found = pickle_[parts(value)[i]];
      if (found.kind != kind) reject("tensor '{}': its storage is named by {}", name, kind_name(found.kind));
      return found;
    };
    const std::string &type = part(1, Kind::global).text, &key = part(2, Kind::text).text;
    const std::int64_t numel = part(4, Kind::integer).integer;
    const auto known = std::find_if(kStorages.begin(), kStorages.end(), [&](const auto& s) { return s.first == type; });
    if (known == kStorages.end()) reject("tensor '{}': '{}' is no storage", name, type);
    if (const auto made = storages_.find({key, known->second}); made != storages_.end()) return made->second;
    const auto bytes = record("data/" + key);
    const std::size_t size = c10::elementSize(known->second);
    if (numel < 0 || static_cast<std::uint64_t>(numel) > bytes.size() / size) {
      reject("tensor '{}': storage '{}' should have {} elements of {} bytes, the record has {} bytes", name, key, numel,
             size, bytes.size());
    }
    const torch::Tensor base = make_storage(bytes.first(static_cast<std::size_t>(numel) * size), numel, known->second);
    storages_.emplace(std::pair(key, known->second), base);
    return base;
  }

  torch::Tensor make_storage(std::span<const std::byte> bytes, std::int64_t numel, torch::ScalarType type) const {
    // Kernels may not touch misaligned numbers; only files of other writers have them.
    const bool aligned = reinterpret_cast<std::uintptr_t>(bytes.data()) % c10::elementSize(type) == 0;
    if (load_ == TensorLoad::map && aligned && !bytes.empty()) {
      // The mapping is copy on write, so its memory may be written.
      return torch::from_blob(
          const_cast<std::byte*>(bytes.data()), {numel}, [file = file_](void*) {}, type);
    }
    torch::Tensor copy = torch::empty({numel}, type);
    if (!bytes.empty()) std::memcpy(copy.data_ptr(), bytes.data(), bytes.size());
    return copy;
  }

  std::shared_ptr<const MappedFile> file_;
  TensorLoad load_;
  std::string root_;  // of the names in the archive, with its slash
  std::map<std::string, std::span<const std::byte>> records_;
  Pickle pickle_;
  std::map<std::pair<std::string, torch::ScalarType>, torch::Tensor> storages_;
};

}  // namespace

bool is_pth(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw DataError(fmt::format("[pth] {} cannot be read", path.string()));
  std::string start(kLegacyStart.size(), '\0');
  file.read(start.data(), static_cast<std::streamsize>(start.size()));
  return start.starts_with(kZipStart) || start == kLegacyStart;
}

StateDict load_pth(const std::filesystem::path& path, TensorLoad load) {
  const auto fail = [&](const std::string& reason) {
    return DataError(fmt::format("[pth] {}: {}", path.string(), detail::readable(reason)));
  };
  try {
    return PthReader(std::make_shared<const MappedFile>(path, MappedFile::Access::copy_on_write), load).read();
  } catch (const Malformed& malformed) {
    throw fail(malformed.reason);
  } catch (const detail::ZipError& error) {
    throw fail(error.what());
  } catch (const detail::PickleError& error) {
    throw fail(error.what());
  }
}

}  // namespace mmtrain
