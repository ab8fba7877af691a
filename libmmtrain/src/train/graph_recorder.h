#pragma once

#include <torch/types.h>

#include <functional>
#include <memory>
#include <string>

namespace mmtrain::detail {

/// Records the work that a device is given, to be repeated without the host's share of it.
class GraphRecorder {
 public:
  virtual ~GraphRecorder() = default;
  /// Runs `work` where it will be recorded: libraries prepare themselves on their first calls.
  virtual void warm_up(const std::function<void()>& work) = 0;
  /// Records `work` without running it on the device.
  virtual void capture(const std::function<void()>& work) = 0;
  /// Runs what was recorded, with what its tensors then hold.
  virtual void replay() = 0;
};

/// A recorder for `device`; null where there is none, and `reason` says why.
std::unique_ptr<GraphRecorder> make_graph_recorder(torch::Device device, std::string& reason);

}  // namespace mmtrain::detail
