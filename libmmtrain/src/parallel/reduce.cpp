#include "parallel/reduce.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <type_traits>

namespace mmtrain::parallel {
namespace {

using RedOp = c10d::ReduceOp;

// Small enough for the first-level cache with the values of one rank beside it.
constexpr std::int64_t kBlock = 1024;

template <class T>
using Accumulator = std::conditional_t<std::is_same_v<T, c10::Half> || std::is_same_v<T, c10::BFloat16>, float, T>;

struct Sum {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a + b);
  }
};

struct Min {
  template <class T>
  T operator()(T a, T b) const {
    return a < b || a != a ? a : b;
  }
};

struct Max {
  template <class T>
  T operator()(T a, T b) const {
    return a > b || a != a ? a : b;
  }
};

template <class T, class Op>
void reduce_block(const std::vector<void*>& ranks, std::int64_t begin, std::int64_t count, Op op) {
  Accumulator<T> values[kBlock];
  const T* first = static_cast<const T*>(ranks[0]) + begin;
  for (std::int64_t i = 0; i < count; ++i) values[i] = static_cast<Accumulator<T>>(first[i]);
  for (std::size_t rank = 1; rank < ranks.size(); ++rank) {
    const T* next = static_cast<const T*>(ranks[rank]) + begin;
    for (std::int64_t i = 0; i < count; ++i) values[i] = op(values[i], static_cast<Accumulator<T>>(next[i]));
  }
  for (void* rank : ranks) {
    T* result = static_cast<T*>(rank) + begin;
    for (std::int64_t i = 0; i < count; ++i) result[i] = static_cast<T>(values[i]);
  }
}

template <class T, class Op>
void reduce_range(const std::vector<void*>& ranks, std::int64_t begin, std::int64_t end, Op op) {
  for (; begin < end; begin += kBlock) reduce_block<T>(ranks, begin, std::min(kBlock, end - begin), op);
}

template <class T>
void reduce_as(RedOp::RedOpType op, const std::vector<void*>& ranks, std::int64_t begin, std::int64_t end) {
  if (op == RedOp::MIN) return reduce_range<T>(ranks, begin, end, Min{});
  if (op == RedOp::MAX) return reduce_range<T>(ranks, begin, end, Max{});
  reduce_range<T>(ranks, begin, end, Sum{});
}

}  // namespace

bool can_reduce(RedOp::RedOpType op, c10::ScalarType dtype) {
  if (op != RedOp::SUM && op != RedOp::MIN && op != RedOp::MAX) return false;
  switch (dtype) {
    case c10::ScalarType::Double:
    case c10::ScalarType::Float:
    case c10::ScalarType::Half:
    case c10::ScalarType::BFloat16:
    case c10::ScalarType::Long:
    case c10::ScalarType::Int:
    case c10::ScalarType::Char:
    case c10::ScalarType::Byte:
      return true;
    default:
      return false;
  }
}

void reduce_elements(RedOp::RedOpType op, c10::ScalarType dtype, const std::vector<void*>& ranks, std::int64_t begin,
                     std::int64_t end) {
  switch (dtype) {
    case c10::ScalarType::Double:
      return reduce_as<double>(op, ranks, begin, end);
    case c10::ScalarType::Float:
      return reduce_as<float>(op, ranks, begin, end);
    case c10::ScalarType::Half:
      return reduce_as<c10::Half>(op, ranks, begin, end);
    case c10::ScalarType::BFloat16:
      return reduce_as<c10::BFloat16>(op, ranks, begin, end);
    case c10::ScalarType::Long:
      return reduce_as<std::int64_t>(op, ranks, begin, end);
    case c10::ScalarType::Int:
      return reduce_as<std::int32_t>(op, ranks, begin, end);
    case c10::ScalarType::Char:
      return reduce_as<std::int8_t>(op, ranks, begin, end);
    case c10::ScalarType::Byte:
      return reduce_as<std::uint8_t>(op, ranks, begin, end);
    default:
      return;  // can_reduce said no
  }
}

}  // namespace mmtrain::parallel
