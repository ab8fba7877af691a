#include "mmtrain/media/image.h"

#include <string>

#include "mmtrain/core/error.h"

// Stands in for image.cpp in a build without an image back end.
namespace mmtrain::media {
namespace {

[[noreturn]] void fail(const std::string& who) {
  throw ConfigError("[" + who +
                    "] this build of mmtrain has no image back end: configure it with -DMMTRAIN_WITH_IMAGE=ON "
                    "(needs libjpeg-turbo and OpenCV), or train from a decoded cache");
}

}  // namespace

void decode_image(std::span<const std::byte>, Image&) { fail("decode_image"); }
Image read_image(const std::filesystem::path&) { fail("read_image"); }
std::vector<std::byte> encode_jpeg(ImageView, int, bool) { fail("encode_jpeg"); }
std::vector<std::byte> encode_png(ImageView) { fail("encode_png"); }

}  // namespace mmtrain::media
