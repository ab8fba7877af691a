// Whether c10d::Reducer, which is no public interface of LibTorch, is made as src/parallel/gradient_reducer.cpp does.
#include <string>
#include <torch/csrc/distributed/c10d/reducer.hpp>
#include <type_traits>
#include <unordered_map>
#include <vector>

static_assert(std::is_constructible_v<c10d::Reducer, std::vector<at::Tensor>, std::vector<std::vector<std::size_t>>,
                                      c10::intrusive_ptr<c10d::ProcessGroup>, std::vector<bool>, std::int64_t, bool,
                                      bool, std::unordered_map<std::size_t, std::string>, std::int64_t, bool, bool,
                                      std::vector<std::int64_t>>);
