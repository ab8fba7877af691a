#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <torch/csrc/distributed/c10d/Types.hpp>
#include <vector>

namespace mmtrain::parallel {

// Whether `reduce_elements` knows this operation (sum, min, max) and dtype.
bool can_reduce(c10d::ReduceOp::RedOpType op, c10::ScalarType dtype);

// Reduces elements [begin, end) of all ranks' buffers in the order of ranks and gives the result to all of them.
// float16 and bfloat16 are summed in float32 and rounded once. A NaN stays.
void reduce_elements(c10d::ReduceOp::RedOpType op, c10::ScalarType dtype, const std::vector<void*>& ranks,
                     std::int64_t begin, std::int64_t end);

}  // namespace mmtrain::parallel
