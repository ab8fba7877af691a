#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "catch.h"
#include "mmtrain/core/error.h"
#include "mmtrain/io/pth_file.h"

namespace fs = std::filesystem;
using mmtrain::DataError;
using mmtrain::StateDict;
using mmtrain::TensorLoad;

namespace {

using namespace std::string_literals;

// A file of the test's own, gone at the end.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& bytes) {
    std::string name = (fs::temp_directory_path() / "mmtrain_pth_XXXXXX").string();
    ::close(::mkstemp(name.data()));
    path_ = name;
    std::ofstream(path_, std::ios::binary) << bytes;
  }
  ~TemporaryFile() { fs::remove(path_); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

template <class T>
std::string number(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

std::string u16(std::size_t value) { return number(static_cast<std::uint16_t>(value)); }
std::string u32(std::size_t value) { return number(static_cast<std::uint32_t>(value)); }
std::string u64(std::size_t value) { return number(static_cast<std::uint64_t>(value)); }

struct ZipOptions {
  std::uint16_t flags = 0, method = 0;
  bool zip64 = false;
  std::size_t entries = 0;  // told in the end record, 0: the truth
};

std::string zip(const std::vector<std::pair<std::string, std::string>>& files, const ZipOptions& options = {}) {
  std::string archive, directory;
  for (const auto& [name, data] : files) {
    const std::size_t begin = archive.size();
    const std::string sizes = u32(data.size()) + u32(data.size());
    const std::string common =
        u16(options.flags) + u16(options.method) + u32(0) + u32(0);  // time, date, checksum not told
    archive += "PK\3\4"s + u16(45) + common + sizes + u16(name.size()) + u16(0) + name + data;
    std::string extra;
    if (options.zip64) extra = u16(1) + u16(24) + u64(data.size()) + u64(data.size()) + u64(begin);
    directory += "PK\1\2"s + u16(45) + u16(45) + common + (options.zip64 ? u32(0xffffffff) + u32(0xffffffff) : sizes) +
                 u16(name.size()) + u16(extra.size()) + u16(0) + u16(0) + u16(0) + u32(0) +
                 (options.zip64 ? u32(0xffffffff) : u32(begin)) + name + extra;
  }
  const std::size_t begin = archive.size(), count = options.entries == 0 ? files.size() : options.entries;
  archive += directory;
  if (options.zip64) {
    const std::size_t end = archive.size();
    archive += "PK\6\6"s + u64(44) + u16(45) + u16(45) + u32(0) + u32(0) + u64(count) + u64(count) +
               u64(directory.size()) + u64(begin);
    archive += "PK\6\7"s + u32(0) + u64(end) + u32(1);
    return archive + "PK\5\6"s + u32(0) + u16(0xffff) + u16(0xffff) + u32(0xffffffff) + u32(0xffffffff) + u16(0);
  }
  return archive + "PK\5\6"s + u32(0) + u16(count) + u16(count) + u32(directory.size()) + u32(begin) + u16(0);
}

std::string text(const std::string& value) { return "X" + u32(value.size()) + value; }
std::string global(const std::string& module, const std::string& name) { return "c" + module + "\n" + name + "\n"; }
std::string integer(std::int64_t value) { return "\x8a\x08" + number(value); }

std::string tuple(const std::vector<std::int64_t>& values) {
  std::string result = "(";
  for (const std::int64_t value : values) result += integer(value);
  return result + "t";
}

struct TensorText {
  std::string storage = "FloatStorage", key = "0";
  std::int64_t numel = 6, offset = 0;
  std::vector<std::int64_t> sizes{2, 3}, strides{3, 1};
};

std::string tensor(const TensorText& t = {}) {
  return global("torch._utils", "_rebuild_tensor_v2") + "((" + text("storage") + global("torch", t.storage) +
         text(t.key) + text("cpu") + integer(t.numel) + "tQ" + integer(t.offset) + tuple(t.sizes) + tuple(t.strides) +
         "\x89" + global("collections", "OrderedDict") + ")RtR";
}

std::string dict(const std::vector<std::pair<std::string, std::string>>& items) {
  std::string result = "}(";
  for (const auto& [key, value] : items) result += text(key) + value;
  return result + "u";
}

std::string pickle(const std::string& value) { return "\x80\x02" + value + "."; }

// 0 to 5 in float32.
std::string six_floats() {
  std::string bytes;
  for (const float value : {0.0F, 1.0F, 2.0F, 3.0F, 4.0F, 5.0F}) bytes += number(value);
  return bytes;
}

std::string archive(const std::string& value, const ZipOptions& options = {}) {
  return zip({{"net/data.pkl", pickle(value)}, {"net/byteorder", "little"}, {"net/data/0", six_floats()}}, options);
}

StateDict load(const std::string& bytes, TensorLoad how = TensorLoad::copy) {
  return mmtrain::load_pth(TemporaryFile(bytes).path(), how);
}

std::string refusal(const std::string& bytes) {
  try {
    load(bytes);
  } catch (const DataError& error) {
    return error.what();
  }
  return "(nothing was thrown)";
}

const torch::Tensor kSix = torch::arange(6, torch::kFloat32).view({2, 3});

}  // namespace

TEST_CASE("a state dict of torch.save is read by name, copied or mapped, with and without zip64", "[io][pth]") {
  const bool zip64 = GENERATE(false, true);
  const TensorLoad how = GENERATE(TensorLoad::copy, TensorLoad::map);
  const std::string both = dict({{"first", tensor()}, {"second", tensor({.sizes = {3}, .strides = {2}})}});
  const StateDict read = load(archive(both, {.zip64 = zip64}), how);
  REQUIRE(read.keys() == std::vector<std::string>{"first", "second"});
  CHECK(torch::equal(read["first"], kSix));
  CHECK(torch::equal(read["second"], torch::tensor({0.0F, 2.0F, 4.0F})));
  CHECK(read["first"].storage().data() == read["second"].storage().data());
}

TEST_CASE("parameters, ordered dicts with attributes, empty and scalar tensors are read", "[io][pth]") {
  const std::string parameter = global("torch._utils", "_rebuild_parameter") + "(" + tensor() + "\x88" +
                                global("collections", "OrderedDict") + ")RtR";
  const std::string ordered = global("collections", "OrderedDict") + ")R(" + text("p") + parameter + text("empty") +
                              tensor({.sizes = {0, 3}, .strides = {3, 1}}) + text("scalar") +
                              tensor({.offset = 5, .sizes = {}, .strides = {}}) + text("x._extra_state") + "Nu" +
                              dict({{"_metadata", "}"}}) + "b";
  const StateDict read = load(archive(ordered));
  REQUIRE(read.keys() == std::vector<std::string>{"p", "empty", "scalar"});
  CHECK(torch::equal(read["p"], kSix));
  CHECK(read["empty"].sizes() == std::vector<std::int64_t>{0, 3});
  CHECK(read["scalar"].item<float>() == 5);
}

TEST_CASE("the state dict of a checkpoint is found under its usual names, beside anything harmless", "[io][pth]") {
  const std::string name = GENERATE(as<std::string>{}, "state_dict", "model_state_dict", "model");
  const std::string checkpoint = dict({{"epoch", "K\5"},
                                       {"loss", "G" + std::string("\x3f\xf8\0\0\0\0\0\0", 8)},
                                       {"history", "]" + integer(-3) + "a"},
                                       {name, dict({{"w", tensor()}})},
                                       {"optimizer", dict({{"state", "}"}, {"lr", "N"}})}});
  const StateDict read = load(archive(checkpoint));
  REQUIRE(read.size() == 1);
  CHECK(torch::equal(read["w"], kSix));
}

TEST_CASE("a global that a state dict has no need of is refused by name", "[io][pth]") {
  for (const auto& [module, name] : {std::pair("os", "system"), std::pair("builtins", "eval"),
                                     std::pair("numpy.core.multiarray", "scalar"), std::pair("posix", "system")}) {
    const std::string call = global(module, name) + "(" + text("touch /tmp/owned") + "tR";
    const std::string reason = refusal(archive(dict({{"w", call}})));
    INFO(reason);
    CHECK(reason.find(module + "."s + name) != std::string::npos);
    CHECK(reason.find("nothing in a file is ever executed") != std::string::npos);
  }
  const std::string stacked = text("os") + text("system") + "\x93";
  CHECK(refusal(archive(stacked)).find("'os.system'") != std::string::npos);
  const std::string steering = refusal(archive(global("bad\x1b[2J", "name")));
  CHECK(steering.find('\x1b') == std::string::npos);
}

TEST_CASE("files of other formats are refused with what to do", "[io][pth]") {
  const auto says = [](const std::string& bytes, const std::string& part) {
    const std::string reason = refusal(bytes);
    INFO(reason);
    CHECK(reason.find(part) != std::string::npos);
  };
  says("\x80\x02\x8a\x0al\xfc\x9c"s, "before PyTorch 1.6");
  says("\x80\x02\x8a\x0al\xfc\x9c"s, "torch.save(torch.load(path, weights_only=True), path)");
  says("", "no zip archive");
  says("{\"json\": 1}", "no zip archive");
  says("PK\3\4", "too few for an archive");
  says(zip({{"other.txt", "text"}}), "without data.pkl");
  says(archive("}", {.method = 8}), "compressed");
  says(archive("}", {.flags = 1}), "encrypted");
  says(archive("}", {.entries = 60000}), "cannot stand in a directory");
  says(zip({{"a/data.pkl", pickle("}")}, {"a/data.pkl", pickle("}")}}), "two files");
  says(zip({{"a/data.pkl", pickle("}")}, {"a/byteorder", "big"}}), "byte order is 'big'");
  says(zip({{"a/data.pkl", pickle(dict({{"w", tensor()}}))}}), "lacks 'a/data/0'");
  says(archive(tensor()), "it holds a tensor, not a state dict");
  says(archive("]"), "it holds a list");
  says(archive(dict({{"w", "K\1"}})), "'w' is a number, not a tensor");
  says(archive("}(" + integer(1) + tensor() + "u"), "as a key");
  says(archive(dict({{"w", tensor()}, {"w", tensor()}})), "'w' twice");
}

TEST_CASE("a tensor must lie in its storage, and the storage in the file", "[io][pth]") {
  const std::int64_t most = std::numeric_limits<std::int64_t>::max();
  for (const TensorText& bad :
       {TensorText{.offset = 1},
        TensorText{.sizes = {2, 4}},
        TensorText{.strides = {4, 1}},
        TensorText{.strides = {-3, 1}},
        TensorText{.offset = -1},
        TensorText{.sizes = {-2, 3}},
        TensorText{.sizes = {2}},
        TensorText{.numel = 7},
        TensorText{.numel = -1},
        TensorText{.numel = most},
        TensorText{.offset = most},
        TensorText{.sizes = {most, most}},
        TensorText{.strides = {most, most}},
        TensorText{.sizes = {most, most}, .strides = {0, 0}},
        TensorText{.sizes = {1 << 20}, .strides = {0}},
        TensorText{.offset = 7, .sizes = {0}, .strides = {1}},
        TensorText{.sizes = std::vector<std::int64_t>(65, 1), .strides = std::vector<std::int64_t>(65, 1)},
        TensorText{.storage = "DoubleStorage"},
        TensorText{.storage = "QuantizedStorage"},
        TensorText{.key = "../data.pkl"}}) {
    const std::string reason = refusal(archive(dict({{"w", tensor(bad)}})));
    INFO(reason);
    CHECK(reason.find("[pth] ") == 0);
  }
  // A storage may be repeated within reason.
  CHECK(load(archive(dict({{"w", tensor({.sizes = {4, 3}, .strides = {0, 1}})}})))["w"].sum().item<float>() == 12);
}

TEST_CASE("pickles that are built to exhaust memory or stack are refused", "[io][pth]") {
  const auto many = [](const std::string& opcodes, std::size_t times) {
    std::string result;
    result.reserve(opcodes.size() * times);
    for (std::size_t i = 0; i < times; ++i) result += opcodes;
    return result;
  };
  CHECK(refusal(archive(many("N", 1'100'000))).find("more than 1000000 values") != std::string::npos);
  CHECK(refusal(archive("N" + many("h\0"s, 1'100'000))).find("remembered") != std::string::npos);
  CHECK(refusal(archive("Nq\0"s + many("h\0"s, 1'100'000))).find("more than") != std::string::npos);
  CHECK(refusal(archive(many("(", 5000))).find("nested deeper") != std::string::npos);
  // Nested without marks: half a million lists, each in the next; nothing may recurse over them.
  CHECK(refusal(archive(many("]", 500'000) + many("a", 499'999))).find("it holds a list") != std::string::npos);
  // A list in itself.
  CHECK(refusal(archive("]q\0h\0a"s)).find("it holds a list") != std::string::npos);
  // A large tuple that is handed to many calls must not be copied to each.
  std::string calls = "(" + many("N", 100'000) + "tq\0"s;
  calls += many("Qh\0"s, 200'000);
  CHECK(refusal(archive(calls)).find("[pth] ") == 0);
}

TEST_CASE("opcodes out of place are refused", "[io][pth]") {
  for (const std::string& bad : {"s"s,
                                 "a"s,
                                 "u"s,
                                 "e"s,
                                 "t"s,
                                 "\x86"s,
                                 "R"s,
                                 "b"s,
                                 "Q"s,
                                 "q\0"s,
                                 "h\7"s,
                                 ""s,
                                 "NR"s,
                                 "NNR"s,
                                 "N)R"s,
                                 "]Nb"s,
                                 "NQ"s,
                                 "(K\1s"s,
                                 "}(K\1u"s,
                                 "](K\1s"s,
                                 "}K\1a"s,
                                 "(}"s + "."s,
                                 "\x8a\x09" + std::string(9, 'x'),
                                 "NN\x93"s,
                                 "0"s,
                                 "2"s,
                                 "i"s,
                                 "\x81"s,
                                 "P1\n"s,
                                 "X\xff\xff\xff\xff"s,
                                 "ctorch"s,
                                 "\x80\x09"s,
                                 global("collections", "OrderedDict") + "(K\1tR"s}) {
    const std::string reason = refusal(archive(bad));
    INFO(bad << ": " << reason);
    CHECK(reason.find("[pth] ") == 0);
  }
}

TEST_CASE("a damaged file is an error or still a state dict whose tensors can be read, never a crash", "[io][pth]") {
  const std::string good = archive(dict({{"a", tensor()}, {"b", tensor({.sizes = {3}, .strides = {2}})}}));
  const TemporaryFile file("");
  std::size_t refused = 0, read = 0;
  const auto try_bytes = [&](const std::string& bytes) {
    std::ofstream(file.path(), std::ios::binary) << bytes;
    try {
      for (const auto& item : mmtrain::load_pth(file.path())) item.value().to(torch::kDouble).sum().item<double>();
      ++read;
    } catch (const DataError&) {
      ++refused;
    }
  };
  for (std::size_t size = 0; size < good.size(); ++size) try_bytes(good.substr(0, size));
  CHECK(read == 0);
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (const int value : {0, 1, 0x7f, 0x80, 0xff}) {
      std::string bytes = good;
      bytes[i] = static_cast<char>(value);
      try_bytes(bytes);
    }
  }
  CHECK(read > 100);  // where the byte stood so already, in numbers, names and times
  CHECK(refused > 1000);
}

TEST_CASE("a file is told by its first bytes", "[io][pth]") {
  CHECK(mmtrain::is_pth(TemporaryFile(archive("}")).path()));
  CHECK(mmtrain::is_pth(TemporaryFile("\x80\x02\x8a\x0al\xfc\x9c"s).path()));
  CHECK_FALSE(mmtrain::is_pth(TemporaryFile("\x10\0\0\0\0\0\0\0{}"s).path()));
  CHECK_FALSE(mmtrain::is_pth(TemporaryFile("").path()));
  CHECK_THROWS_AS(mmtrain::is_pth("/no/such/file.pth"), DataError);
}
