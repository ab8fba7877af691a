// A CUDA driver and management library that hold no GPU but answer as if: the ones the environment describes.
//   FAKE_CUDA_INIT     what cuInit returns (default 0)
//   FAKE_CUDA_VERSION  CUDA the driver serves (default 13000)
//   FAKE_CUDA_DEVICES  how many GPUs there are (default 2)
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>

#define FAKE extern "C" __attribute__((visibility("default")))

namespace {

int setting(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text ? std::atoi(text) : otherwise;
}

constexpr int kInvalidValue = 1, kInvalidDevice = 101, kNotFound = 6;

bool missing(int device) { return device < 0 || device >= setting("FAKE_CUDA_DEVICES", 2); }

struct Memory {
  unsigned long long total, free, used;
};

}  // namespace

FAKE int cuInit(unsigned flags) { return flags != 0 ? kInvalidValue : setting("FAKE_CUDA_INIT", 0); }

FAKE int cuDriverGetVersion(int* version) {
  *version = setting("FAKE_CUDA_VERSION", 13000);
  return 0;
}

FAKE int cuGetErrorString(int error, const char** text) {
  *text = error == 100   ? "no CUDA-capable device is detected"
          : error == 803 ? "system has unsupported display driver"
                         : nullptr;
  return *text ? 0 : kInvalidValue;
}

FAKE int cuDeviceGetCount(int* count) {
  *count = setting("FAKE_CUDA_DEVICES", 2);
  return 0;
}

FAKE int cuDeviceGet(int* device, int ordinal) {
  if (missing(ordinal)) return kInvalidDevice;
  *device = ordinal;
  return 0;
}

FAKE int cuDeviceGetName(char* name, int length, int device) {
  if (missing(device)) return kInvalidDevice;
  std::strncpy(name, ("Fake GPU " + std::to_string(device)).c_str(), static_cast<std::size_t>(length));
  return 0;
}

FAKE int cuDeviceTotalMem_v2(std::size_t* bytes, int device) {
  if (missing(device)) return kInvalidDevice;
  *bytes = std::size_t{80} << 30;
  return 0;
}

FAKE int cuDeviceGetAttribute(int* value, int attribute, int device) {
  if (missing(device)) return kInvalidDevice;
  *value = attribute == 75 ? 9 : attribute == 76 ? device : attribute == 16 ? 132 : -1;
  return 0;
}

FAKE int cuDeviceGetUuid_v2(unsigned char* uuid, int device) {
  if (missing(device)) return kInvalidDevice;
  for (int i = 0; i < 16; ++i) uuid[i] = static_cast<unsigned char>(0x10 * device + i);
  return 0;
}

FAKE int nvmlInit_v2() { return 0; }

FAKE int nvmlSystemGetDriverVersion(char* text, unsigned length) {
  std::strncpy(text, "580.65.06", length);
  return 0;
}

// GPU 0 is a whole one, GPU 1 a slice.
FAKE int nvmlDeviceGetHandleByUUID(const char* uuid, void** device) {
  static int devices[2];
  if (std::strcmp(uuid, "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f") == 0)
    *device = &devices[0];
  else if (std::strcmp(uuid, "MIG-10111213-1415-1617-1819-1a1b1c1d1e1f") == 0)
    *device = &devices[1];
  else
    return kNotFound;
  devices[1] = 1;
  return 0;
}

FAKE int nvmlDeviceGetMemoryInfo(void* device, Memory* memory) {
  const auto index = static_cast<unsigned long long>(*static_cast<int*>(device));
  *memory = {1000, 600 + index, 400 - index};
  return 0;
}
