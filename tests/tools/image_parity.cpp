// C++ side of tests/python/image_parity.py. Standard input holds one job a line:
//   INPUT OUTPUT OPERATION ARGUMENTS...
// Images are files of `height width` as two int32, then the RGB bytes; float results and random samples are bare
// numbers. `decode` reads an encoded file.

#include <cstdint>
#include <cstring>
#include <exception>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "mmtrain/media/image.h"
#include "mmtrain/media/image_ops.h"
#include "mmtrain/media/image_sampling.h"

namespace {

using namespace mmtrain;
using namespace mmtrain::media;

std::vector<std::byte> read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot open " + path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::vector<std::byte> bytes(text.size());
  std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

template <class T>
void write_numbers(const std::string& path, const std::vector<T>& numbers) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(numbers.data()), static_cast<std::streamsize>(numbers.size() * sizeof(T)));
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

Image read_raw(const std::string& path) {
  const std::vector<std::byte> bytes = read_bytes(path);
  std::int32_t size[2];
  std::memcpy(size, bytes.data(), sizeof size);
  Image image{size[0], size[1], std::vector<std::uint8_t>(bytes.size() - sizeof size)};
  std::memcpy(image.pixels.data(), bytes.data() + sizeof size, image.pixels.size());
  return image;
}

void write_raw(const std::string& path, const Image& image) {
  const std::int32_t size[2] = {image.height, image.width};
  std::vector<std::uint8_t> bytes(sizeof size + image.pixels.size());
  std::memcpy(bytes.data(), size, sizeof size);
  std::memcpy(bytes.data() + sizeof size, image.pixels.data(), image.pixels.size());
  write_numbers(path, bytes);
}

/// One line of work: its arguments are taken one after the other.
struct Job {
  std::string input, output;
  std::istringstream arguments;

  template <class T = double>
  T next() {
    T value;
    if (!(arguments >> value)) throw std::runtime_error("an argument is missing");
    return value;
  }
  template <std::size_t N, class T = double>
  std::array<T, N> array() {
    std::array<T, N> values;
    for (T& value : values) value = next<T>();
    return values;
  }
  Box box() {
    const auto [top, left, height, width] = array<4, int>();
    return {top, left, height, width};
  }
};

std::vector<float> normalized(const Image& image, const std::array<float, 3>& mean, const std::array<float, 3>& std) {
  std::vector<float> planar(image.pixels.size());
  normalize_to_planar(image.view(), mean, std, planar);
  return planar;
}

using ImageWork = std::function<Image(ImageView, Job&)>;
const std::map<std::string, ImageWork> kImageWork = {
    {"resize",
     [](ImageView image, Job& job) {
       const auto [height, width, antialias] = job.array<3, int>();
       return resize(image, height, width, antialias != 0);
     }},
    {"crop", [](ImageView image, Job& job) { return crop(image, job.box()); }},
    {"resized_crop",
     [](ImageView image, Job& job) {
       const Image part = crop(image, job.box());
       const auto [height, width] = job.array<2, int>();
       return resize(part.view(), height, width);
     }},
    {"pad",
     [](ImageView image, Job& job) {
       const auto [left, top, right, bottom] = job.array<4, int>();
       return pad(image, left, top, right, bottom, static_cast<std::uint8_t>(job.next<int>()));
     }},
    {"flip", [](ImageView image, Job&) { return flip_horizontal(image); }},
    {"center_crop",
     [](ImageView image, Job& job) {
       const auto [height, width] = job.array<2, int>();
       RandomStream unused(0);
       return ImageTransform({CenterCrop{height, width}}).apply_uint8(image, unused);
     }},
    {"resize_shorter",
     [](ImageView image, Job& job) {
       RandomStream unused(0);
       return ImageTransform({Resize{job.next<int>()}}).apply_uint8(image, unused);
     }},
    {"brightness", [](ImageView image, Job& job) { return adjust_brightness(image, job.next()); }},
    {"contrast", [](ImageView image, Job& job) { return adjust_contrast(image, job.next()); }},
    {"saturation", [](ImageView image, Job& job) { return adjust_saturation(image, job.next()); }},
    {"hue", [](ImageView image, Job& job) { return adjust_hue(image, job.next()); }},
};

using FloatWork = std::function<std::vector<float>(const Image&, Job&)>;
const std::map<std::string, FloatWork> kFloatWork = {
    {"normalize",
     [](const Image& image, Job& job) {
       const auto mean = job.array<3, float>(), std = job.array<3, float>();
       return normalized(image, mean, std);
     }},
    {"erase",
     [](const Image& image, Job& job) {
       std::vector<float> planar = normalized(image, {0, 0, 0}, {1, 1, 1});
       const Box box = job.box();
       erase(planar, image.height, image.width, box, job.next<float>());
       return planar;
     }},
};

std::vector<double> numbers_of(const Box& box) {
  return {double(box.top), double(box.left), double(box.height), double(box.width)};
}

/// Draws the random choices of one sample as numbers; -1 where there is none.
using Sampler = std::function<std::vector<double>(RandomStream&)>;
const std::map<std::string, std::function<Sampler(Job&)>> kSamplers = {
    {"sample_crop",
     [](Job& job) -> Sampler {
       const auto [height, width, size, padding] = job.array<4, int>();
       const RandomCrop op{size, size, padding};
       return [=](RandomStream& random) { return numbers_of(sample_crop(op, height, width, random)); };
     }},
    {"sample_resized_crop",
     [](Job& job) -> Sampler {
       const auto [height, width] = job.array<2, int>();
       RandomResizedCrop op{64, 64};
       op.scale = job.array<2>();
       op.ratio = job.array<2>();
       return [=](RandomStream& random) { return numbers_of(sample_resized_crop(op, height, width, random)); };
     }},
    {"sample_jitter",
     [](Job& job) -> Sampler {
       const auto [brightness, contrast, saturation, hue] = job.array<4>();
       const ColorJitter op{brightness, contrast, saturation, hue};
       return [=](RandomStream& random) {
         const JitterFactors drawn = sample_jitter(op, random);
         std::vector<double> numbers(drawn.order.begin(), drawn.order.end());
         for (const auto& factor : {drawn.brightness, drawn.contrast, drawn.saturation, drawn.hue}) {
           numbers.push_back(factor.value_or(-1));
         }
         return numbers;
       };
     }},
    {"sample_erasing",
     [](Job& job) -> Sampler {
       const auto [height, width] = job.array<2, int>();
       RandomErasing op;
       op.p = job.next();
       op.scale = job.array<2>();
       op.ratio = job.array<2>();
       return [=](RandomStream& random) {
         const auto box = sample_erasing(op, height, width, random);
         return box ? numbers_of(*box) : std::vector<double>(4, -1.0);
       };
     }},
};

std::vector<double> draw(const Sampler& sampler, std::int64_t count) {
  std::vector<double> all;
  for (std::int64_t index = 0; index < count; ++index) {
    RandomStream random(2024, RandomDomain::sample, 0, static_cast<std::uint64_t>(index));
    for (const double number : sampler(random)) all.push_back(number);
  }
  return all;
}

void run(const std::string& operation, Job& job) {
  if (operation == "decode") {
    Image image;
    decode_image(read_bytes(job.input), image);
    write_raw(job.output, image);
  } else if (operation == "encode_jpeg") {
    const auto [quality, grey] = job.array<2, int>();
    write_numbers(job.output, encode_jpeg(read_raw(job.input).view(), quality, grey != 0));
  } else if (operation == "encode_png") {
    write_numbers(job.output, encode_png(read_raw(job.input).view()));
  } else if (const auto image_work = kImageWork.find(operation); image_work != kImageWork.end()) {
    const Image image = read_raw(job.input);
    write_raw(job.output, image_work->second(image.view(), job));
  } else if (const auto float_work = kFloatWork.find(operation); float_work != kFloatWork.end()) {
    write_numbers(job.output, float_work->second(read_raw(job.input), job));
  } else if (const auto sampler = kSamplers.find(operation); sampler != kSamplers.end()) {
    const Sampler draw_one = sampler->second(job);
    write_numbers(job.output, draw(draw_one, job.next<std::int64_t>()));
  } else {
    throw std::runtime_error("unknown operation " + operation);
  }
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    Job job;
    std::string operation;
    job.arguments.str(line);
    job.arguments >> job.input >> job.output >> operation;
    try {
      run(operation, job);
    } catch (const std::exception& error) {
      std::cerr << line << ": " << error.what() << '\n';
      return 1;
    }
  }
}
