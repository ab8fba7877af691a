// One of the files that include headers of the CUDA toolkit.
#include "train/graph_recorder.h"

#include <ATen/cuda/CUDAGraph.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace mmtrain::detail {
namespace {

// Whatever `from` was given so far comes before what `to` is given from now on.
void wait(const c10::Stream& to, const c10::Stream& from) {
  c10::Event done(from.device_type());
  done.record(from);
  done.block(to);
}

class CudaGraphRecorder final : public GraphRecorder {
 public:
  explicit CudaGraphRecorder(torch::Device device)
      : backend_(device.type()), side_(backend_.getStreamFromGlobalPool(device)) {}

  void warm_up(const std::function<void()>& work) override { on_side_stream(work); }

  void capture(const std::function<void()>& work) override {
    on_side_stream([&] {
      // Loader threads may pin memory meanwhile, which the global mode forbids.
      graph_.capture_begin(at::cuda::graph_pool_handle(), cudaStreamCaptureModeThreadLocal);
      work();
      graph_.capture_end();
    });
  }

  void replay() override { graph_.replay(); }

 private:
  void on_side_stream(const std::function<void()>& work) {
    const c10::Stream caller = backend_.getStream(side_.device());
    wait(side_, caller);
    {
      const c10::StreamGuard guard(side_);
      work();
    }
    wait(caller, side_);
  }

  c10::impl::VirtualGuardImpl backend_;
  c10::Stream side_;
  at::cuda::CUDAGraph graph_;
};

}  // namespace

std::unique_ptr<GraphRecorder> make_graph_recorder(torch::Device device, std::string& reason) {
  if (device.is_cuda()) return std::make_unique<CudaGraphRecorder>(device);
  reason = "there is nothing to compile for on " + device.str();
  return nullptr;
}

}  // namespace mmtrain::detail
