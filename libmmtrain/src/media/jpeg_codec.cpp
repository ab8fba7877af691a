#include "media/jpeg_codec.h"

#include <fmt/format.h>

#include <array>
#include <cstdio>  // jpeglib.h needs FILE
// In this order: jerror.h builds on jpeglib.h.
#include <jpeglib.h>

#include <jerror.h>

#include <algorithm>
#include <csetjmp>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "mmtrain/core/error.h"

namespace mmtrain::media::detail {
namespace {

constexpr std::size_t kMaxPixels = std::size_t{1} << 28;
/// A Huffman-coded 8x8 block takes at least one bit in its first scan, so a byte never holds more pixels than this.
constexpr std::size_t kMaxPixelsPerByte = 8 * 64;

/// Lines read at once, and the alignment from which libjpeg-turbo (AVX2) streams its output past the cache.
constexpr unsigned kLines = 16;
constexpr std::size_t kStreamAlignment = 32;

/// libjpeg's way to report: errors jump back to the caller with the text in `message`. Warnings that mean wrong pixels
/// are errors here; libjpeg itself would fill the rest with grey and go on.
struct ErrorState {
  jpeg_error_mgr manager;
  std::jmp_buf jump;
  std::array<char, JMSG_LENGTH_MAX> message;
};

ErrorState& state_of(j_common_ptr info) { return *reinterpret_cast<ErrorState*>(info->err); }

[[noreturn]] void jump_out(j_common_ptr info) {
  ErrorState& state = state_of(info);
  state.manager.format_message(info, state.message.data());
  std::longjmp(state.jump, 1);
}

bool damages_pixels(int code) {
  constexpr std::array kCodes = {JWRN_HIT_MARKER,  JWRN_JPEG_EOF,       JWRN_HUFF_BAD_CODE,
                                 JWRN_MUST_RESYNC, JWRN_ARITH_BAD_CODE, JWRN_EXTRANEOUS_DATA};
  return std::find(kCodes.begin(), kCodes.end(), code) != kCodes.end();
}

void on_message(j_common_ptr info, int level) {
  if (level < 0 && damages_pixels(info->err->msg_code)) jump_out(info);
}

void discard_output(j_common_ptr) {}

jpeg_error_mgr* install(ErrorState& state) {
  jpeg_error_mgr* manager = jpeg_std_error(&state.manager);
  manager->error_exit = jump_out;
  manager->emit_message = on_message;
  manager->output_message = discard_output;
  return manager;
}

/// Runs `step`, a sequence of libjpeg calls without objects that need a destructor, because an error jumps out of it.
/// After an error `info` is ready for the next image and the error is thrown as `DataError`.
template <class Info, class Step>
void run(Info& info, ErrorState& state, Step&& step) {
  if (setjmp(state.jump) != 0) {
    jpeg_abort(reinterpret_cast<j_common_ptr>(&info));
    throw DataError(state.message.data());
  }
  step();
}

/// A product of two values of 0..255 divided by 255, rounded.
std::uint8_t scale255(int a, int b) {
  const int product = a * b + 128;
  return static_cast<std::uint8_t>((product + (product >> 8)) >> 8);
}

class Decompressor {
 public:
  Decompressor() {
    info_.err = install(error_);
    if (setjmp(error_.jump) != 0) throw DataError(error_.message.data());
    jpeg_create_decompress(&info_);
  }
  ~Decompressor() { jpeg_destroy_decompress(&info_); }
  Decompressor(const Decompressor&) = delete;
  Decompressor& operator=(const Decompressor&) = delete;

  void decode(std::span<const std::byte> encoded, Image& image) {
    try {
      read_header(encoded);
      require_plausible_size(encoded.size());
      image.height = static_cast<int>(info_.image_height);
      image.width = static_cast<int>(info_.image_width);
      image.pixels.resize(std::size_t{3} * info_.image_height * info_.image_width);
      if (info_.out_color_space == JCS_CMYK) {
        read_cmyk(image.pixels.data());
      } else {
        read_rgb(image.pixels.data());
      }
    } catch (...) {
      jpeg_abort_decompress(&info_);
      throw;
    }
  }

 private:
  void read_header(std::span<const std::byte> encoded) {
    run(info_, error_, [&] {
      jpeg_mem_src(&info_, reinterpret_cast<const unsigned char*>(encoded.data()), encoded.size());
      jpeg_read_header(&info_, TRUE);
      const bool four_inks = info_.jpeg_color_space == JCS_CMYK || info_.jpeg_color_space == JCS_YCCK;
      info_.out_color_space = four_inks ? JCS_CMYK : JCS_RGB;
    });
  }

  /// Refuses a small file that claims to be a huge picture before memory is spent on it.
  void require_plausible_size(std::size_t bytes) const {
    require_pixel_count(info_.image_height, info_.image_width);
    const std::size_t pixels = std::size_t{info_.image_height} * info_.image_width;
    if (!info_.arith_code && pixels / kMaxPixelsPerByte > bytes) {
      throw DataError(fmt::format("truncated: {} bytes cannot hold the declared {} x {} pixels", bytes,
                                  info_.image_height, info_.image_width));
    }
  }

  void read_rgb(std::uint8_t* pixels) {
    const std::size_t pitch = std::size_t{3} * info_.image_width;
    // libjpeg-turbo writes lines that are aligned to a vector past the cache, and who reads the image next waits for
    // memory. Lines that are not, it writes as usual: aligned images get theirs from a buffer in between.
    const bool streams = (reinterpret_cast<std::uintptr_t>(pixels) | pitch) % kStreamAlignment == 0;
    std::uint8_t* buffer = streams ? unaligned_lines(pitch) : nullptr;
    run(info_, error_, [&] {
      jpeg_start_decompress(&info_);
      while (info_.output_scanline < info_.output_height) {
        std::uint8_t* to = pixels + info_.output_scanline * pitch;
        const unsigned left = info_.output_height - info_.output_scanline;
        const unsigned count = read_lines(streams ? buffer : to, pitch, std::min(left, kLines));
        if (streams) std::memcpy(to, buffer, count * pitch);
      }
      jpeg_finish_decompress(&info_);
    });
  }

  std::uint8_t* unaligned_lines(std::size_t pitch) {
    lines_.resize(kLines * pitch + kStreamAlignment);
    const bool aligned = reinterpret_cast<std::uintptr_t>(lines_.data()) % kStreamAlignment == 0;
    return lines_.data() + (aligned ? kStreamAlignment / 2 : 0);
  }

  /// Reads up to `wanted` lines: whole blocks of lines at once spare the copies that line-by-line reading costs.
  unsigned read_lines(std::uint8_t* to, std::size_t pitch, unsigned wanted) {
    std::array<JSAMPROW, kLines> rows;
    for (unsigned i = 0; i < wanted; ++i) rows[i] = to + i * pitch;
    return jpeg_read_scanlines(&info_, rows.data(), wanted);
  }

  /// Inks are stored inverted (Adobe's convention, which all known writers follow).
  void read_cmyk(std::uint8_t* pixels) {
    lines_.resize(std::size_t{4} * info_.image_width);
    run(info_, error_, [&] {
      jpeg_start_decompress(&info_);
      while (info_.output_scanline < info_.output_height) {
        JSAMPROW row = lines_.data();
        jpeg_read_scanlines(&info_, &row, 1);
        for (const JSAMPLE* ink = row; ink != row + 4 * std::size_t{info_.output_width}; ink += 4, pixels += 3) {
          for (int c = 0; c < 3; ++c) pixels[c] = scale255(ink[c], ink[3]);
        }
      }
      jpeg_finish_decompress(&info_);
    });
  }

  jpeg_decompress_struct info_{};
  ErrorState error_;
  std::vector<JSAMPLE> lines_;
};

class Compressor {
 public:
  Compressor() {
    info_.err = install(error_);
    if (setjmp(error_.jump) != 0) throw DataError(error_.message.data());
    jpeg_create_compress(&info_);
  }
  ~Compressor() {
    jpeg_destroy_compress(&info_);
    std::free(buffer_);
  }
  Compressor(const Compressor&) = delete;
  Compressor& operator=(const Compressor&) = delete;

  std::vector<std::byte> encode(ImageView image, int quality, bool grey) {
    run(info_, error_, [&] {
      jpeg_mem_dest(&info_, &buffer_, &size_);
      info_.image_width = static_cast<JDIMENSION>(image.width);
      info_.image_height = static_cast<JDIMENSION>(image.height);
      info_.input_components = 3;
      info_.in_color_space = JCS_RGB;
      jpeg_set_defaults(&info_);
      if (grey) jpeg_set_colorspace(&info_, JCS_GRAYSCALE);
      jpeg_set_quality(&info_, quality, TRUE);
      jpeg_start_compress(&info_, TRUE);
      const std::size_t pitch = std::size_t{3} * info_.image_width;
      while (info_.next_scanline < info_.image_height) {
        // libjpeg's interface lacks const, it does not write to its input.
        JSAMPROW row = const_cast<JSAMPROW>(image.data + info_.next_scanline * pitch);
        jpeg_write_scanlines(&info_, &row, 1);
      }
      jpeg_finish_compress(&info_);
    });
    const auto* bytes = reinterpret_cast<const std::byte*>(buffer_);
    return {bytes, bytes + size_};
  }

 private:
  jpeg_compress_struct info_{};
  ErrorState error_;
  unsigned char* buffer_ = nullptr;
  unsigned long size_ = 0;
};

}  // namespace

void require_pixel_count(std::size_t height, std::size_t width) {
  if (height == 0 || width == 0) throw DataError(fmt::format("an image of {} x {} pixels", height, width));
  if (height > kMaxPixels / width) {
    throw DataError(fmt::format("too large: {} x {} pixels, the limit is {} in all", height, width, kMaxPixels));
  }
}

bool is_jpeg(std::span<const std::byte> encoded) {
  return encoded.size() >= 3 && encoded[0] == std::byte{0xFF} && encoded[1] == std::byte{0xD8} &&
         encoded[2] == std::byte{0xFF};
}

void decode_jpeg(std::span<const std::byte> encoded, Image& image) {
  thread_local Decompressor decompressor;
  decompressor.decode(encoded, image);
}

std::vector<std::byte> compress_jpeg(ImageView image, int quality, bool grey) {
  return Compressor().encode(image, quality, grey);
}

}  // namespace mmtrain::media::detail
