#include "train/graph_recorder.h"

namespace mmtrain::detail {

std::unique_ptr<GraphRecorder> make_graph_recorder(torch::Device device, std::string& reason) {
  reason = device.is_cuda() ? "this library was built without the CUDA toolkit's headers"
                            : "there is nothing to compile for on " + device.str();
  return nullptr;
}

}  // namespace mmtrain::detail
