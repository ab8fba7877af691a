#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <new>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "catch.h"
#include "mmtrain/core/cpu_features.h"
#include "mmtrain/core/error.h"
#include "mmtrain/media/image.h"
#include "mmtrain/media/image_ops.h"
#include "mmtrain/media/image_sampling.h"
#include "mmtrain/media/image_transform.h"

namespace {

std::atomic<std::int64_t> allocations{0};

}  // namespace

// Counts what the library takes from the heap: its calls bind to these. (GCC warns where it inlines one of a pair.)
[[gnu::noinline]] void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size != 0 ? size : 1)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(size != 0 ? size : 1);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

using namespace mmtrain;
using namespace mmtrain::media;

enum class Content { smooth, noise };

Image picture(int height, int width, Content content, unsigned seed = 1) {
  std::mt19937 generator(seed);
  const double fx = 0.02 + 0.001 * static_cast<double>(generator() % 100), fy = 0.03;
  Image image{height, width, std::vector<std::uint8_t>(std::size_t{3} * static_cast<std::size_t>(height * width))};
  std::size_t at = 0;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c) {
        const double wave = 127.5 + 100 * std::sin(fx * x * (c + 1) + seed) * std::cos(fy * y + c);
        image.pixels[at++] = static_cast<std::uint8_t>(content == Content::noise ? generator() % 256 : wave);
      }
    }
  }
  return image;
}

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

std::string reason_of(std::span<const std::byte> encoded) {
  Image image;
  try {
    decode_image(encoded, image);
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

double mean_difference(const Image& a, const Image& b) {
  double total = 0;
  for (std::size_t i = 0; i < a.pixels.size(); ++i) total += std::abs(int{a.pixels[i]} - int{b.pixels[i]});
  return total / static_cast<double>(a.pixels.size());
}

void set_big_endian16(std::vector<std::byte>& bytes, std::size_t at, unsigned value) {
  bytes[at] = static_cast<std::byte>(value >> 8);
  bytes[at + 1] = static_cast<std::byte>(value & 0xFF);
}

/// Where the JPEG's frame header (SOF0) begins.
std::size_t find_frame_header(const std::vector<std::byte>& jpeg) {
  for (std::size_t i = 0; i + 1 < jpeg.size(); ++i) {
    if (jpeg[i] == std::byte{0xFF} && jpeg[i + 1] == std::byte{0xC0}) return i;
  }
  FAIL("no SOF0 in the JPEG");
  return 0;
}

std::vector<SimdLevel> levels() {
  std::vector<SimdLevel> available;
  for (const SimdLevel level : {SimdLevel::scalar, SimdLevel::avx2, SimdLevel::avx512}) {
    if (level <= best_simd_level()) available.push_back(level);
  }
  return available;
}

/// Switches kernels and switches back.
class LevelGuard {
 public:
  LevelGuard() : before_(simd_level()) {}
  ~LevelGuard() { set_simd_level(before_); }

 private:
  SimdLevel before_;
};

const Normalize kNormalize = {{0.4802F, 0.4481F, 0.3975F}, {0.2770F, 0.2691F, 0.2821F}};

ImageTransform reference_transform(int size) {
  return ImageTransform({RandomResizedCrop{size, size}, RandomHorizontalFlip{}, ColorJitter{0.2, 0.2, 0.2, 0.1},
                         kNormalize, RandomErasing{}});
}

RandomStream stream(std::uint64_t index) { return RandomStream(7, RandomDomain::sample, 3, index); }

std::vector<float> apply(const ImageTransform& transform, ImageView image, std::uint64_t index,
                         ImageTransform::Scratch& scratch) {
  const auto [height, width] = transform.output_size(image.height, image.width);
  std::vector<float> output(std::size_t{3} * static_cast<std::size_t>(height * width), -99.0F);
  RandomStream random = stream(index);
  transform.apply(image, random, output, scratch);
  return output;
}

std::vector<float> apply(const ImageTransform& transform, ImageView image, std::uint64_t index) {
  ImageTransform::Scratch scratch;
  return apply(transform, image, index, scratch);
}

Image apply_uint8(const std::vector<ImageOp>& ops, ImageView image, std::uint64_t index) {
  RandomStream random = stream(index);
  return ImageTransform(ops).apply_uint8(image, random);
}

bool same(const Image& a, const Image& b) { return a.height == b.height && a.width == b.width && a.pixels == b.pixels; }

}  // namespace

TEST_CASE("A JPEG keeps its size and, nearly, its pixels", "[media][decode]") {
  for (const auto& [height, width] : {std::pair{64, 64}, {1, 1}, {37, 90}, {200, 3}}) {
    const Image image = picture(height, width, Content::smooth);
    Image decoded;
    decode_image(encode_jpeg(image.view(), 95), decoded);
    CHECK(decoded.height == height);
    CHECK(decoded.width == width);
    CHECK(mean_difference(image, decoded) < 4);
  }
}

TEST_CASE("A grey JPEG is spread over three equal channels", "[media][decode]") {
  const Image image = picture(40, 50, Content::smooth);
  const std::vector<std::byte> grey = encode_jpeg(image.view(), 90, true);
  CHECK(grey.size() < encode_jpeg(image.view(), 90).size());
  Image decoded;
  decode_image(grey, decoded);
  for (std::size_t i = 0; i < decoded.pixels.size(); i += 3) {
    REQUIRE(decoded.pixels[i] == decoded.pixels[i + 1]);
    REQUIRE(decoded.pixels[i] == decoded.pixels[i + 2]);
  }
}

TEST_CASE("PNG keeps every pixel", "[media][decode]") {
  const Image image = picture(33, 21, Content::noise);
  Image decoded;
  decode_image(encode_png(image.view()), decoded);
  CHECK(same(image, decoded));
}

TEST_CASE("Encoding the same pixels gives the same bytes", "[media][encode]") {
  const Image image = picture(64, 64, Content::noise);
  CHECK(encode_jpeg(image.view(), 90) == encode_jpeg(image.view(), 90));
  CHECK(encode_png(image.view()) == encode_png(image.view()));
  CHECK(encode_jpeg(image.view(), 50).size() < encode_jpeg(image.view(), 90).size());
}

TEST_CASE("Encoders refuse what they cannot encode", "[media][encode]") {
  const Image image = picture(8, 8, Content::smooth);
  CHECK_THROWS_AS(encode_jpeg(image.view(), 0), ConfigError);
  CHECK_THROWS_AS(encode_jpeg(image.view(), 101), ConfigError);
  CHECK_THROWS_AS(encode_jpeg(ImageView{}), DataError);
  CHECK_THROWS_AS(encode_png(ImageView{image.pixels.data(), 0, 8}), DataError);
  const std::vector<std::uint8_t> wide(std::size_t{3} * 70000);
  CHECK_THROWS_WITH(encode_jpeg({wide.data(), 1, 70000}), Catch::Contains("65500"));
}

TEST_CASE("What is no image is an error that shows how it begins", "[media][decode]") {
  CHECK(contains(reason_of({}), "empty"));
  const std::string reason = reason_of(bytes_of("this is no picture\n"));
  CHECK(contains(reason, "[decode_image]"));
  CHECK(contains(reason, "19 bytes"));
  CHECK(contains(reason, "this is no pictu"));
  CHECK(contains(reason_of(bytes_of(std::string("\x00\x01\xFF", 3))), "\\x00\\x01\\xff"));
}

TEST_CASE("A JPEG cut anywhere is an error in libjpeg's words", "[media][decode]") {
  const std::vector<std::byte> jpeg = encode_jpeg(picture(48, 64, Content::noise).view(), 80);
  for (std::size_t size = 0; size < jpeg.size(); ++size) {
    INFO("cut to " << size << " of " << jpeg.size());
    const std::string reason = reason_of(std::span(jpeg).first(size));
    REQUIRE(!reason.empty());
    if (size > jpeg.size() / 2) {
      REQUIRE((contains(reason, "remature end")));
    }
  }
  CHECK(reason_of(jpeg).empty());
}

TEST_CASE("Damaged image data is an error, never grey pixels", "[media][decode]") {
  std::vector<std::byte> jpeg = encode_jpeg(picture(64, 64, Content::noise).view(), 80);
  // A marker in the middle of the coded data ends it early.
  jpeg[jpeg.size() / 2] = std::byte{0xFF};
  jpeg[jpeg.size() / 2 + 1] = std::byte{0xD9};
  CHECK(contains(reason_of(jpeg), "Corrupt JPEG data"));

  std::vector<std::byte> png = encode_png(picture(64, 64, Content::noise).view());
  CHECK(!reason_of(std::span(png).first(png.size() / 2)).empty());
}

TEST_CASE("Any bytes either decode or throw DataError", "[media][decode][fuzz]") {
  const Image original = picture(24, 40, Content::smooth);
  std::mt19937 generator(11);
  int decoded_count = 0, failed = 0;
  const std::pair<std::vector<std::byte>, int> sources[] = {{encode_jpeg(original.view(), 85), 2000},
                                                            {encode_png(original.view()), 300}};
  for (const auto& [source, rounds] : sources) {
    for (int round = 0; round < rounds; ++round) {
      std::vector<std::byte> bytes = source;
      for (unsigned change = 0; change <= generator() % 4; ++change) {
        bytes[generator() % bytes.size()] = static_cast<std::byte>(generator() % 256);
      }
      if (generator() % 4 == 0) bytes.resize(generator() % bytes.size());
      Image image;
      try {
        decode_image(bytes, image);
        REQUIRE(image.pixels.size() == std::size_t{3} * static_cast<std::size_t>(image.height * image.width));
        ++decoded_count;
      } catch (const DataError&) {
        ++failed;
      }
    }
  }
  CHECK(decoded_count > 100);
  CHECK(failed > 100);
  Image image;
  CHECK_NOTHROW(decode_image(encode_jpeg(original.view()), image));
}

TEST_CASE("A size that is too large or cannot be true is refused before memory is taken", "[media][decode]") {
  std::vector<std::byte> jpeg = encode_jpeg(picture(16, 16, Content::smooth).view());
  const std::size_t size_at = find_frame_header(jpeg) + 5;
  set_big_endian16(jpeg, size_at, 65000);
  set_big_endian16(jpeg, size_at + 2, 65000);
  CHECK(contains(reason_of(jpeg), "too large: 65000 x 65000"));

  set_big_endian16(jpeg, size_at, 16000);
  set_big_endian16(jpeg, size_at + 2, 16000);
  CHECK(contains(reason_of(jpeg), "cannot hold"));

  std::vector<std::byte> png = encode_png(picture(16, 16, Content::smooth).view());
  set_big_endian16(png, 18, 20000);
  set_big_endian16(png, 22, 20000);
  CHECK(contains(reason_of(png), "too large: 20000 x 20000"));
}

TEST_CASE("Reading a file names it in every error", "[media][decode]") {
  const auto folder = std::filesystem::temp_directory_path() / "mmtrain_media_test";
  std::filesystem::create_directories(folder);
  const auto path = folder / "text.JPEG";
  std::ofstream(path) << "hello";
  CHECK_THROWS_WITH(read_image(path), Catch::Contains(path.string()) && Catch::Contains("hello"));
  CHECK_THROWS_WITH(read_image(folder / "none.jpg"), Catch::Contains("none.jpg: No such file"));
  CHECK_THROWS_AS(read_image(folder), DataError);

  const Image image = picture(5, 6, Content::noise);
  const std::vector<std::byte> png = encode_png(image.view());
  std::ofstream(folder / "a.png", std::ios::binary)
      .write(reinterpret_cast<const char*>(png.data()), static_cast<std::streamsize>(png.size()));
  CHECK(same(read_image(folder / "a.png"), image));
  std::filesystem::remove_all(folder);
}

TEST_CASE("Threads decode independently, also after errors", "[media][decode]") {
  const Image image = picture(64, 64, Content::smooth);
  const std::vector<std::byte> jpeg = encode_jpeg(image.view());
  Image expected;
  decode_image(jpeg, expected);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      Image mine;
      for (int round = 0; round < 50; ++round) {
        if ((round + t) % 3 == 0 && reason_of(std::span(jpeg).first(jpeg.size() / 2)).empty()) ++wrong;
        decode_image(jpeg, mine);
        if (!same(mine, expected)) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("Every instruction set gives the same bits", "[media][simd]") {
  const LevelGuard guard;
  struct Result {
    std::vector<Image> images;
    std::vector<std::vector<float>> floats;
  };
  std::vector<Result> results;
  for (const SimdLevel level : levels()) {
    set_simd_level(level);
    Result result;
    // Widths around the vector lengths, so that each kind of remainder comes up.
    for (const int width : {1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 21, 31, 32, 33, 47, 63, 64, 65, 100, 131}) {
      const Image image = picture(1 + width % 37, width, width % 2 == 0 ? Content::noise : Content::smooth);
      const ImageView view = image.view();
      for (const auto& [h, w] : {std::pair{64, 64}, {1, 3}, {9, 130}, {image.height, 13}, {20, width}}) {
        result.images.push_back(resize(view, h, w, true));
        result.images.push_back(resize(view, h, w, false));
      }
      for (const double factor : {0.0, 0.37, 1.0, 2.9}) {
        result.images.push_back(adjust_brightness(view, factor));
        result.images.push_back(adjust_contrast(view, factor));
        result.images.push_back(adjust_saturation(view, factor));
        result.images.push_back(adjust_hue(view, factor / 5.8));
        result.images.push_back(adjust_hue(view, -factor / 5.8));
      }
      for (std::uint64_t index = 0; index < 6; ++index) {
        result.floats.push_back(apply(reference_transform(width), view, index));
        result.floats.push_back(apply(
            ImageTransform({RandomCrop{image.height, width, 3}, RandomHorizontalFlip{}, kNormalize}), view, index));
      }
    }
    results.push_back(std::move(result));
  }
  for (std::size_t level = 1; level < results.size(); ++level) {
    INFO("against " << simd_level_name(levels()[level]));
    REQUIRE(std::equal(results[0].images.begin(), results[0].images.end(), results[level].images.begin(), same));
    REQUIRE(results[0].floats == results[level].floats);
  }
}

TEST_CASE("A level that the machine lacks is refused", "[media][simd]") {
  CHECK(simd_level() <= best_simd_level());
  CHECK(simd_level_name(SimdLevel::avx512) == "avx512");
  if (best_simd_level() < SimdLevel::avx512) {
    CHECK_THROWS_AS(set_simd_level(SimdLevel::avx512), ConfigError);
  }
}

TEST_CASE("A transform in one go equals its operations one by one", "[media][transform]") {
  const Image image = picture(50, 70, Content::noise);
  const RandomCrop crop_op{48, 60, 5, 33};
  const ColorJitter jitter{0.4, 0.4, 0.4, 0.2};
  const RandomResizedCrop resized_crop{30, 40};
  const RandomErasing erasing{0.9, {0.02, 0.33}, {0.3, 3.3}, 0.5F};
  const ImageTransform transform(
      {crop_op, RandomHorizontalFlip{}, jitter, resized_crop, RandomHorizontalFlip{}, kNormalize, erasing});
  int erased = 0;
  for (std::uint64_t index = 0; index < 40; ++index) {
    RandomStream random = stream(index);
    Image expected = crop(image.view(), sample_crop(crop_op, image.height, image.width, random), crop_op.fill);
    if (random.bernoulli(0.5)) expected = flip_horizontal(expected.view());
    const JitterFactors factors = sample_jitter(jitter, random);
    for (const int kind : factors.order) {
      if (kind == 0) expected = adjust_brightness(expected.view(), *factors.brightness);
      if (kind == 1) expected = adjust_contrast(expected.view(), *factors.contrast);
      if (kind == 2) expected = adjust_saturation(expected.view(), *factors.saturation);
      if (kind == 3) expected = adjust_hue(expected.view(), *factors.hue);
    }
    expected = crop(expected.view(), sample_resized_crop(resized_crop, expected.height, expected.width, random));
    expected = resize(expected.view(), resized_crop.height, resized_crop.width);
    if (random.bernoulli(0.5)) expected = flip_horizontal(expected.view());
    std::vector<float> planar(expected.pixels.size());
    normalize_to_planar(expected.view(), kNormalize.mean, kNormalize.std, planar);
    if (const auto box = sample_erasing(erasing, expected.height, expected.width, random)) {
      ++erased;
      erase(planar, expected.height, expected.width, *box, erasing.value);
    }

    REQUIRE(apply(transform, image.view(), index) == planar);
    RandomStream again = stream(index);
    REQUIRE(same(transform.apply_uint8(image.view(), again), expected));
  }
  CHECK(erased > 20);
}

TEST_CASE("Jitter before Normalize equals jitter of a finished image", "[media][transform]") {
  const Image image = picture(65, 64, Content::smooth);
  const ColorJitter jitter{0.4, 0.4, 0.4, 0.2};
  for (std::uint64_t index = 0; index < 30; ++index) {
    const Image colored = apply_uint8({jitter, RandomHorizontalFlip{}, jitter}, image.view(), index);
    std::vector<float> expected(colored.pixels.size());
    normalize_to_planar(colored.view(), kNormalize.mean, kNormalize.std, expected);
    const ImageTransform transform({jitter, RandomHorizontalFlip{}, jitter, kNormalize});
    REQUIRE(apply(transform, image.view(), index) == expected);
  }
}

TEST_CASE("Without Normalize pixels become the range [0, 1]", "[media][transform]") {
  const Image image = picture(9, 17, Content::noise);
  const std::vector<float> planar = apply(ImageTransform(), image.view(), 0);
  for (std::size_t i = 0; i < 9 * 17; ++i) {
    for (std::size_t c = 0; c < 3; ++c) {
      REQUIRE(planar[c * 9 * 17 + i] == Approx(image.pixels[3 * i + c] / 255.0).margin(1e-7));
    }
  }
}

TEST_CASE("Padding never brings back pixels that a crop cut away", "[media][transform]") {
  const Image image = picture(40, 40, Content::noise);
  const Image cut = apply_uint8({CenterCrop{20, 24}}, image.view(), 0);
  CHECK(same(cut, crop(image.view(), {10, 8, 20, 24})));
  CHECK(same(apply_uint8({CenterCrop{20, 24}, CenterCrop{36, 30}}, image.view(), 0), pad(cut.view(), 3, 8, 3, 8)));

  // Two fills: the second padding surrounds the first.
  const RandomCrop first{44, 44, 2, 100}, second{48, 48, 2, 200};
  const Image expected = pad(pad(image.view(), 2, 2, 2, 2, 100).view(), 2, 2, 2, 2, 200);
  CHECK(same(apply_uint8({first, second}, image.view(), 0), expected));
  CHECK(
      same(apply_uint8({first, RandomHorizontalFlip{1.0}, second}, image.view(), 0), flip_horizontal(expected.view())));
}

TEST_CASE("Crops after a flip count from the mirrored side", "[media][transform]") {
  const Image image = picture(12, 30, Content::noise);
  for (std::uint64_t index = 0; index < 20; ++index) {
    const RandomCrop op{10, 13, 2};
    RandomStream random = stream(index);
    (void)random.bernoulli(1.0);
    const Box box = sample_crop(op, 12, 30, random);
    const Image expected = crop(flip_horizontal(image.view()).view(), box);
    REQUIRE(same(apply_uint8({RandomHorizontalFlip{1.0}, op}, image.view(), index), expected));
  }
}

TEST_CASE("A crop outside the image is all fill", "[media][ops]") {
  const Image image = picture(8, 8, Content::noise);
  for (const Box& box : {Box{-20, 0, 4, 4}, Box{0, 50, 4, 4}, Box{8, 8, 4, 4}}) {
    const Image outside = crop(image.view(), box, 9);
    CHECK(std::all_of(outside.pixels.begin(), outside.pixels.end(), [](std::uint8_t v) { return v == 9; }));
  }
}

TEST_CASE("The announced size is the size of the result", "[media][transform]") {
  const std::vector<std::vector<ImageOp>> lists = {{Resize{20, 0}},
                                                   {Resize{17, 33}},
                                                   {Resize{30, 0, false}, CenterCrop{28, 28}},
                                                   {CenterCrop{100, 3}},
                                                   {RandomCrop{20, 20, 4}, RandomHorizontalFlip{}, ColorJitter{0.1}},
                                                   {RandomResizedCrop{11, 12}}};
  for (const auto& ops : lists) {
    for (const auto& [height, width] : {std::pair{64, 64}, {13, 95}, {200, 30}}) {
      const Image image = picture(height, width, Content::smooth);
      const Image result = apply_uint8(ops, image.view(), 1);
      CHECK(ImageTransform(ops).output_size(height, width) == std::array{result.height, result.width});
    }
  }
}

TEST_CASE("A sample's numbers name its result, whatever was done before", "[media][transform]") {
  const Image image = picture(64, 64, Content::noise);
  const ImageTransform transform = reference_transform(48);
  ImageTransform::Scratch used;
  std::vector<std::vector<float>> results;
  for (std::uint64_t index = 0; index < 20; ++index) results.push_back(apply(transform, image.view(), index, used));
  for (std::uint64_t index = 20; index-- > 0;) {
    REQUIRE(apply(transform, image.view(), index, used) == results[index]);
    REQUIRE(apply(transform, image.view(), index) == results[index]);
  }
  CHECK(results[0] != results[1]);
}

TEST_CASE("Adjustments by nothing change nothing", "[media][ops]") {
  const Image image = picture(30, 41, Content::noise);
  CHECK(same(adjust_brightness(image.view(), 1), image));
  CHECK(same(adjust_contrast(image.view(), 1), image));
  CHECK(same(adjust_saturation(image.view(), 1), image));
  CHECK(same(adjust_hue(image.view(), 0), image));
  CHECK(same(resize(image.view(), 30, 41), image));
  CHECK(same(flip_horizontal(flip_horizontal(image.view()).view()), image));
}

TEST_CASE("A third of the circle turns red into green into blue", "[media][ops]") {
  const Image red{1, 1, {200, 10, 10}};
  CHECK(adjust_hue(red.view(), 1.0 / 3.0).pixels == std::vector<std::uint8_t>{10, 200, 10});
  CHECK(adjust_hue(red.view(), -1.0 / 3.0).pixels == std::vector<std::uint8_t>{10, 10, 200});
  CHECK(adjust_hue(red.view(), 0.5).pixels == std::vector<std::uint8_t>{10, 200, 200});
}

TEST_CASE("Once warm, decoding and transforming allocate nothing", "[media][transform]") {
  std::vector<std::vector<std::byte>> files;
  for (unsigned i = 0; i < 32; ++i) files.push_back(encode_jpeg(picture(64, 64, Content::smooth, i).view()));
  const Image large = picture(375, 500, Content::noise);
  const ImageTransform crop_flip({RandomCrop{64, 64, 4}, RandomHorizontalFlip{}, kNormalize});
  const ImageTransform reference = reference_transform(64);
  const ImageTransform twice(
      {ColorJitter{0.1, 0.1, 0.1, 0.1}, RandomHorizontalFlip{}, Resize{80, 80}, CenterCrop{64, 64}});
  ImageTransform::Scratch scratch;
  Image image;
  std::vector<float> output(std::size_t{3} * 64 * 64);
  const auto pass = [&](std::uint64_t count) {
    for (std::uint64_t index = 0; index < count; ++index) {
      RandomStream random = stream(index);
      decode_image(files[index % files.size()], image);
      for (const ImageTransform* transform : {&crop_flip, &reference, &twice}) {
        transform->apply(image.view(), random, output, scratch);
      }
      reference.apply(large.view(), random, output, scratch);
    }
  };
  pass(400);
  const std::int64_t before = allocations;
  pass(400);
  CHECK(allocations - before == 0);
}

TEST_CASE("Impossible options are refused with the rule and the value", "[media][transform]") {
  const auto refuses = [](std::vector<ImageOp> ops, const std::string& part) {
    CHECK_THROWS_AS(ImageTransform(ops), ConfigError);
    CHECK_THROWS_WITH(ImageTransform(ops), Catch::Contains(part));
  };
  refuses({Resize{0, 5}}, "[Resize] height must be positive");
  refuses({Resize{5, -1}}, "5 x -1");
  refuses({CenterCrop{4, 0}}, "[CenterCrop]");
  refuses({RandomCrop{4, 4, -1}}, "padding must not be negative, got -1");
  refuses({RandomResizedCrop{4, 4, {0.5, 0.2}}}, "[0.5, 0.2]");
  refuses({RandomResizedCrop{4, 4, {0.5, 1.2}}}, "scale");
  refuses({RandomResizedCrop{4, 4, {0.5, 1.0}, {0, 1}}}, "ratio");
  refuses({RandomHorizontalFlip{1.5}}, "p must be in [0, 1], got 1.5");
  refuses({ColorJitter{-0.1}}, "[ColorJitter]");
  refuses({ColorJitter{0, 0, 0, 0.6}}, "hue must be in [0, 0.5], got 0.6");
  refuses({Normalize{{0, 0, 0}, {1, 0, 1}}}, "std must be positive");
  refuses({RandomErasing{-1}}, "[RandomErasing] p");
  refuses({kNormalize, CenterCrop{4, 4}}, "before Normalize");
  refuses({RandomErasing{}, kNormalize}, "Normalize");
  refuses({kNormalize, kNormalize}, "once");
  refuses({RandomErasing{}, RandomHorizontalFlip{}}, "before RandomErasing");
  CHECK_NOTHROW(ImageTransform({kNormalize, RandomErasing{}, RandomErasing{}}));
}

TEST_CASE("Images and places that do not fit are refused", "[media][transform]") {
  const Image image = picture(20, 20, Content::smooth);
  const ImageTransform crop30({RandomCrop{30, 30, 4}});
  ImageTransform::Scratch scratch;
  RandomStream random = stream(0);
  std::vector<float> output(3 * 30 * 30);
  CHECK_THROWS_AS(crop30.apply(image.view(), random, output, scratch), DataError);
  CHECK_THROWS_AS(ImageTransform().apply(image.view(), random, output, scratch), DataError);
  CHECK_THROWS_AS(ImageTransform().apply(ImageView{}, random, output, scratch), DataError);
  CHECK_THROWS_AS(resize(image.view(), 0, 4), DataError);
  CHECK_THROWS_AS(crop(ImageView{}, {0, 0, 1, 1}), DataError);
  CHECK_THROWS_AS(pad(image.view(), -1, 0, 0, 0), DataError);
  CHECK_THROWS_AS(adjust_brightness(image.view(), -0.5), ConfigError);
  CHECK_THROWS_AS(adjust_hue(image.view(), 0.51), ConfigError);
  CHECK_THROWS_AS(erase(output, 30, 30, {25, 0, 6, 3}, 0), DataError);
  CHECK_THROWS_AS(erase(output, 20, 20, {0, 0, 1, 1}, 0), DataError);
}

namespace {

double thread_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// Prints the median rate of one thread by its own CPU time, which other load disturbs least.
void report_rate(const std::string& name, std::size_t count, const std::function<void(std::size_t)>& work) {
  std::vector<double> rates;
  for (int round = 0; round < 9; ++round) {
    const double start = thread_seconds();
    for (std::size_t i = 0; i < count; ++i) work(i);
    rates.push_back(static_cast<double>(count) / (thread_seconds() - start));
  }
  std::sort(rates.begin(), rates.end());
  std::cout << name << ": " << static_cast<long>(rates[4]) << " images/s, " << 1e6 / rates[4] << " us\n";
}

}  // namespace

TEST_CASE("Speed of decoding and transforming 64x64 images on one thread", "[.bench]") {
  constexpr std::size_t kCount = 4000, kBatch = 64, kValues = std::size_t{3} * 64 * 64;
  std::vector<std::vector<std::byte>> files;
  std::vector<Image> images;
  for (std::size_t i = 0; i < 1000; ++i) {
    images.push_back(picture(64, 64, Content::smooth, static_cast<unsigned>(i)));
    files.push_back(encode_jpeg(images.back().view()));
  }
  std::vector<float> batch(kBatch * kValues);
  ImageTransform::Scratch scratch;
  Image decoded;
  report_rate("decode_image", kCount, [&](std::size_t i) { decode_image(files[i % files.size()], decoded); });

  const RandomResizedCrop resized_crop{64, 64};
  const RandomHorizontalFlip flip;
  const ColorJitter jitter{0.2, 0.2, 0.2, 0.1};
  const std::vector<std::pair<std::string, ImageTransform>> transforms = {
      {"normalize", ImageTransform({kNormalize})},
      {"crop, flip, normalize", ImageTransform({RandomCrop{64, 64, 4}, flip, kNormalize})},
      {"resized crop, flip, normalize", ImageTransform({resized_crop, flip, kNormalize})},
      {"jitter, normalize", ImageTransform({jitter, kNormalize})},
      {"resized crop, flip, jitter, normalize", ImageTransform({resized_crop, flip, jitter, kNormalize})}};
  const LevelGuard guard;
  for (const SimdLevel level : levels()) {
    set_simd_level(level);
    for (const auto& named : transforms) {
      report_rate(std::string(simd_level_name(level)) + ": " + named.first, kCount, [&](std::size_t i) {
        RandomStream random = stream(i);
        const std::span<float> slot(batch.data() + i % kBatch * kValues, kValues);
        named.second.apply(images[i % images.size()].view(), random, slot, scratch);
      });
    }
  }
}
