#pragma once

#include <mmtrain/device/memory.h>

#include <functional>

namespace programs {

/// Runs the body of a program and turns what it throws into the message and exit code of the command-line contract:
/// 1 the run failed, 2 wrong use or missing data, 3 out of memory. The body fills in what the advice then given may
/// speak of, as soon as it knows.
int run_program(const std::function<int(mmtrain::OutOfMemoryContext&)>& body);

}  // namespace programs
