// C++ side of tests/python/video_parity.py. Standard input holds one job a line:
//   INPUT OUTPUT FRAMES KEY_FRAMES_ONLY START DURATION HEIGHT WIDTH
// The span is that of frames and of sound. The output is a row of numbers: int32 count, height, width, sample rate,
// channels and samples, the frames' times as doubles, their RGB bytes, the samples as floats. A file that is refused
// gives zeros.

#include <cstdint>
#include <exception>
#include <fstream>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "mmtrain/core/error.h"
#include "mmtrain/media/video.h"

namespace {

using namespace mmtrain::media;

template <class T>
void put(std::ofstream& file, const std::vector<T>& numbers) {
  file.write(reinterpret_cast<const char*>(numbers.data()), static_cast<std::streamsize>(numbers.size() * sizeof(T)));
}

void run(std::istringstream line) {
  std::string input, output;
  VideoOptions video;
  if (!(line >> input >> output >> video.frames >> video.key_frames_only >> video.start >> video.duration >>
        video.height >> video.width)) {
    throw std::runtime_error("an argument is missing");
  }
  Clip clip;
  try {
    clip = read_clip(input, video, {.start = video.start, .duration = video.duration});
  } catch (const mmtrain::DataError& error) {
    std::cerr << error.what() << '\n';
  }
  std::ofstream file(output, std::ios::binary);
  const Image first = clip.video.frames.empty() ? Image{} : clip.video.frames[0];
  put<std::int32_t>(file, {static_cast<int>(clip.video.frames.size()), first.height, first.width,
                           clip.audio.sample_rate, clip.audio.channels, static_cast<int>(clip.audio.samples.size())});
  put(file, clip.video.times);
  for (const Image& frame : clip.video.frames) put(file, frame.pixels);
  put(file, clip.audio.samples);
  if (!file.flush()) throw std::runtime_error("cannot write " + output);
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    try {
      run(std::istringstream(line));
    } catch (const std::exception& error) {
      std::cerr << line << ": " << error.what() << '\n';
      return 1;
    }
  }
}
