#include "common/program.h"

#include <mmtrain/core/error.h>
#include <mmtrain/core/log.h>
#include <signal.h>

#include <cstdio>
#include <cstdlib>
#include <exception>

namespace programs {
namespace {

constexpr int kFailed = 1, kWrongUse = 2, kOutOfMemory = 3;

int report(const char* text, int code) {
  mmtrain::log::set_status_line("");
  mmtrain::log::error(text);
  return code;
}

}  // namespace

int run_program(const std::function<int(mmtrain::OutOfMemoryContext&)>& body) {
  mmtrain::OutOfMemoryContext memory;
  ::signal(SIGXFSZ, SIG_IGN);  // a limit on file sizes shall be an error of the write, as a full disk is
  try {
    return body(memory);
  } catch (const mmtrain::ConfigError& error) {
    return report(error.what(), kWrongUse);
  } catch (const mmtrain::DataError& error) {
    return report(error.what(), kWrongUse);
  } catch (const mmtrain::DeviceError& error) {
    return report(error.what(), kWrongUse);
  } catch (const mmtrain::DistributedError& error) {
    // It may be of another rank, where the advice is given. A thread rank that does not answer may live on, and what it
    // uses must not be destroyed.
    report(error.what(), kFailed);
    std::fflush(nullptr);
    std::_Exit(mmtrain::is_out_of_memory(error) ? kOutOfMemory : kFailed);
  } catch (const std::exception& error) {
    if (!mmtrain::is_out_of_memory(error)) return report(error.what(), kFailed);
    return report(mmtrain::out_of_memory_advice(error, memory).c_str(), kOutOfMemory);
  }
}

}  // namespace programs
