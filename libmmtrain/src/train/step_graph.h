#pragma once

#include <functional>
#include <memory>

#include "mmtrain/train/train_step.h"
#include "train/graph_recorder.h"

namespace mmtrain::detail {

/// Runs a step as a recorded graph: the first batches as they are, then the recording, then replays of it with each
/// batch copied to where the first one lay. Batches of other shapes, such as an epoch's last, run as they are.
class StepGraph {
 public:
  /// The device's part of a step: no reading of values, no decision that depends on them.
  using Work = std::function<StepResult(const Batch& batch)>;

  explicit StepGraph(std::unique_ptr<GraphRecorder> recorder) : recorder_(std::move(recorder)) {}

  /// The tensors of the result are those of the recording: the next run fills them anew.
  StepResult run(const Batch& batch, const Work& work);

  bool is_recorded() const { return recorded_; }

 private:
  std::unique_ptr<GraphRecorder> recorder_;
  Batch batch_;  // what the recording reads; before it, the shapes that were warmed up
  StepResult result_;
  int warm_ups_ = 0;
  bool recorded_ = false;
};

}  // namespace mmtrain::detail
