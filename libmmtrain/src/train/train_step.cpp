#include "mmtrain/train/train_step.h"

#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/where.h>
#include <fmt/format.h>

#include <string_view>
#include <utility>

#include "mmtrain/amp/autocast.h"
#include "mmtrain/core/error.h"
#include "mmtrain/core/log.h"
#include "mmtrain/nn/random_context.h"
#include "mmtrain/optim/clip.h"
#include "mmtrain/optim/optimizer.h"
#include "mmtrain/parallel/sync_batch_norm.h"
#include "mmtrain/train/optimizer_state.h"
#include "train/step_graph.h"

namespace mmtrain {
namespace {

void require_not_negative(std::string_view name, double value) {
  if (!(value >= 0)) throw ConfigError(fmt::format("[TrainStep] {} must not be negative, got {}", name, value));
}

const TrainStepOptions& validated(const TrainStepOptions& options) {
  require_not_negative("clip_norm", options.clip_norm);
  require_not_negative("clip_value", options.clip_value);
  return options;
}

amp::GradScalerOptions scaler_options(const TrainStepOptions& options) {
  amp::GradScalerOptions result = options.scaler;
  result.enabled = options.precision.scaler;
  return result;
}

// A batch whose rows all weigh nothing has gradients of zero, not NaN.
torch::Tensor or_one(const torch::Tensor& weight) { return at::where(weight.eq(0), 1, weight); }

c10::DeviceType device_of(const Batch& batch) {
  return batch.inputs.is_empty() ? c10::kCPU : batch.inputs[0].value().device().type();
}

}  // namespace

Loss cross_entropy_loss(const nn::CrossEntropyOptions& options) {
  return [options](const torch::Tensor& output, const Batch& batch) {
    return nn::cross_entropy(output, batch.target, options, batch.weights);
  };
}

Loss focal_loss(const nn::FocalLossOptions& options) {
  return [options](const torch::Tensor& output, const Batch& batch) {
    return nn::focal_loss(output, batch.target, options, batch.weights);
  };
}

void to_channels_last(torch::nn::Module& module) {
  torch::NoGradGuard no_grad;
  const auto convert = [](torch::Tensor& tensor) {
    if (tensor.dim() != 4) return;
    // A kernel of 1x1 counts as channels-last already, but its gradient comes with strides in full: reducer and
    // optimizer want the same.
    tensor.set_data(torch::empty_like(tensor, tensor.options(), torch::MemoryFormat::ChannelsLast).copy_(tensor));
  };
  for (torch::Tensor& parameter : module.parameters()) convert(parameter);
  for (torch::Tensor& buffer : module.buffers()) convert(buffer);
}

TrainStep::TrainStep(std::shared_ptr<Model> model, std::shared_ptr<torch::optim::Optimizer> optimizer, Loss loss,
                     TrainStepOptions options)
    : model_(std::move(model)),
      optimizer_(std::move(optimizer)),
      loss_(std::move(loss)),
      options_(validated(options)),
      scaler_(scaler_options(options_)) {
  torch::nn::Module& module = model_->module();
  if (options_.channels_last) to_channels_last(module);
  nn::assign_dropout_layers(module);
  if (has_joint_statistics()) {
    parallel::convert_sync_batchnorm(module, std::make_shared<parallel::GroupStatistics>(options_.group));
  }
  reducer_ = std::make_unique<parallel::GradientReducer>(module, options_.group, options_.reducer);
  if (options_.ema) ema_.emplace(module, *options_.ema);
  if (options_.compile) compile();
}

TrainStep::~TrainStep() = default;

void TrainStep::compile() {
  const std::vector<torch::Tensor> parameters = model_->module().parameters();
  const torch::Device device = parameters.empty() ? torch::kCPU : parameters.front().device();
  std::string reason;
  std::unique_ptr<detail::GraphRecorder> recorder = detail::make_graph_recorder(device, reason);
  auto* capturable = dynamic_cast<optim::Optimizer*>(optimizer_.get());
  if (recorder) {
    const auto fixes_momentum = [](const auto& scheduler) { return scheduler && scheduler->changes_momentum(); };
    if (options_.group.world_size() > 1) {
      reason = "several ranks train together";
    } else if (capturable == nullptr || !capturable->is_capturable()) {
      reason = "the optimizer has no kernel that follows a learning rate on the device";
    } else if (fixes_momentum(options_.scheduler) || fixes_momentum(options_.epoch_scheduler)) {
      reason = "the schedule changes the momentum, which a recording keeps";
    }
  }
  if (!reason.empty()) {
    log::warning(fmt::format("compile_model: nothing is compiled, steps run as they are: {}", reason));
    return;
  }
  capturable->set_capturable(true);
  step_on_device_ = torch::zeros({}, torch::TensorOptions(torch::kLong).device(device));
  graph_ = std::make_unique<detail::StepGraph>(std::move(recorder));
}

// What a recording reads from the device instead of the host.
void TrainStep::begin_step() {
  if (!graph_) return;
  step_on_device_.fill_(step_count_);
  static_cast<optim::Optimizer&>(*optimizer_).refresh_lr();
}

torch::Tensor TrainStep::forward(const Batch& batch) {
  if (!options_.channels_last) return model_->forward(batch.inputs);
  NamedTensors inputs;
  inputs.reserve(batch.inputs.size());
  for (const auto& input : batch.inputs) {
    const torch::Tensor& tensor = input.value();
    inputs.insert(input.key(), tensor.dim() == 4 ? tensor.contiguous(torch::MemoryFormat::ChannelsLast) : tensor);
  }
  return model_->forward(inputs);
}

LossValue TrainStep::forward_loss(const Batch& batch, torch::Tensor& output) {
  std::optional<amp::Autocast> autocast;
  if (options_.precision.autocast) autocast.emplace(device_of(batch), options_.precision.dtype);
  output = forward(batch);
  return loss_(output, batch);
}

// The weight of the joined batch; `status` and `rows` become those of all ranks. One number for each kind of thing to
// say, since what is joined is a sum.
torch::Tensor TrainStep::agree(const torch::Tensor& weight, std::int64_t& rows, StepStatus& status) {
  if (options_.group.world_size() == 1) return weight;
  const torch::Tensor words = torch::tensor(
      {0.0, status.stop ? 1.0 : 0.0, status.no_batch ? 1.0 : 0.0, static_cast<double>(rows)}, torch::kDouble);
  const bool on_device = weight.defined() && !weight.device().is_cpu();
  if (weight.defined() && !on_device) words[0].copy_(weight);
  parallel::ProcessGroup& group = reducer_->group();
  group.all_reduce(words);
  const double* values = words.const_data_ptr<double>();
  status = {.stop = values[1] > 0, .no_batch = values[2] > 0};
  rows = static_cast<std::int64_t>(values[3]);
  if (!weight.defined()) return {};
  if (!on_device) return words[0].to(weight.options());
  // Joined where it is: the host does not wait for the forward pass to end.
  const torch::Tensor joint = weight.to(torch::kDouble, /*non_blocking=*/false, /*copy=*/true);
  if (!status.no_batch) group.all_reduce(joint);
  return joint.to(weight.options());
}

// `zero_grad` would detach them first, which the reducer's views of its buckets do not allow.
void TrainStep::clear_gradients() {
  for (torch::optim::OptimizerParamGroup& group : optimizer_->param_groups()) {
    for (torch::Tensor& parameter : group.params()) parameter.mutable_grad().reset();
  }
}

// Leaves the step that is open.
void TrainStep::drop() {
  clear_gradients();
  micro_batches_ = rows_ = 0;
  weight_.reset();
}

// Divides by the weight of the batch where it is the whole of its step, so that nothing is left to correct; else by its
// rows, a first guess which `apply_gradients` makes good when the weights of all parts are known.
StepResult TrainStep::backward(const Batch& batch, const RowPlace& given_place, StepStatus status, bool completes) {
  const bool whole = completes && !is_accumulating();
  RowPlace place = given_place;
  if (place.total == 0 && place.rows < 0) {
    place.first = options_.group.rank();
    place.stride = options_.group.world_size();
  }
  if (!is_accumulating()) reducer_->synchronize_buffers();
  StepResult result;
  LossValue loss;
  {
    nn::StepContext context{.seed = options_.seed,
                            .step = step_count_,
                            .rows = batch.size(),
                            .first_sample = rows_ + place.first,
                            .step_on_device = step_on_device_};
    if (place.stride != 1) {
      for (std::int64_t i = 0; i < batch.size(); ++i) {
        context.samples.push_back(context.first_sample + i * place.stride);
      }
    }
    const nn::RandomContext random(std::move(context));
    loss = forward_loss(batch, result.output);
  }
  result.loss_sum = loss.sum.detach();
  result.weight = loss.weight.detach();
  std::int64_t rows_of_all = place.rows >= 0 ? place.rows : batch.size();
  const torch::Tensor joint_weight = agree(result.weight, rows_of_all, status);
  if (place.total == 0) place.total = rows_of_all;
  result.status = status;
  if (status.no_batch) {
    drop();
    return result;
  }
  if (completes) reducer_->prepare(result.output);
  result.output = result.output.detach();
  if (whole) {
    scaler_.scale(loss.sum / or_one(joint_weight)).backward();
  } else {
    if (micro_batches_++ == 0) nominal_weight_ = static_cast<double>(std::max<std::int64_t>(place.total, 1));
    rows_ += place.total;
    weight_ = weight_.defined() ? weight_ + joint_weight : joint_weight;
    scaler_.scale(loss.sum / nominal_weight_).backward();
  }
  if (completes) reducer_->check();
  return result;
}

// After an error, out of memory say, the next step begins from nothing.
StepResult TrainStep::backward_or_drop(const Batch& batch, const RowPlace& place, StepStatus status, bool completes) {
  try {
    return backward(batch, place, status, completes);
  } catch (...) {
    drop();
    throw;
  }
}

void TrainStep::apply_gradients(StepResult& result) {
  const bool accumulated = micro_batches_ > 0;
  if (accumulated || options_.clip_norm > 0 || options_.clip_value > 0) {
    const std::vector<torch::Tensor> parameters = trained_parameters();
    scaler_.unscale_(*optimizer_);
    if (accumulated) {
      std::vector<torch::Tensor> gradients;
      gradients.reserve(parameters.size());
      for (const torch::Tensor& parameter : parameters) gradients.push_back(parameter.grad());
      if (!gradients.empty()) at::_foreach_mul_(gradients, nominal_weight_ / or_one(weight_));
    }
    if (options_.clip_norm > 0) result.grad_norm = optim::clip_grad_norm(parameters, options_.clip_norm);
    if (options_.clip_value > 0) optim::clip_grad_value(parameters, options_.clip_value);
  }
  scaler_.step(*optimizer_);
  if (scaler_.is_enabled()) result.skipped = scaler_.found_inf(*optimizer_);
  scaler_.update();
  clear_gradients();
}

// The host's part of a step, which no graph holds.
void TrainStep::advance(const StepResult& result) {
  if (options_.scheduler) options_.scheduler->step();
  if (ema_) ema_->update(result.skipped);
  ++step_count_;
  micro_batches_ = rows_ = 0;
  weight_.reset();
}

std::vector<torch::Tensor> TrainStep::trained_parameters() const {
  std::vector<torch::Tensor> result;
  for (const torch::optim::OptimizerParamGroup& group : optimizer_->param_groups()) {
    for (const torch::Tensor& parameter : group.params()) {
      if (parameter.grad().defined()) result.push_back(parameter);
    }
  }
  return result;
}

StepResult TrainStep::run(const Batch& batch, const RowPlace& place, StepStatus status) {
  StepResult result;
  if (!is_accumulating()) begin_step();
  if (graph_ && !is_accumulating()) {
    result = graph_->run(batch, [&](const Batch& given) { return run_whole(given, place, status); });
  } else {
    result = run_whole(batch, place, status);
  }
  if (!result.status.no_batch) advance(result);
  return result;
}

StepResult TrainStep::run_whole(const Batch& batch, const RowPlace& place, StepStatus status) {
  StepResult result = backward_or_drop(batch, place, status, /*completes=*/true);
  if (!result.status.no_batch) apply_gradients(result);
  return result;
}

StepResult TrainStep::accumulate(const Batch& batch, const RowPlace& place, StepStatus status) {
  if (!is_accumulating()) begin_step();
  return backward_or_drop(batch, place, status, /*completes=*/false);
}

StepResult TrainStep::pass(StepStatus status) {
  status.no_batch = true;
  std::int64_t rows = 0;
  agree({}, rows, status);
  drop();
  return {.status = status};
}

StepResult TrainStep::finish() {
  StepResult result;
  if (!is_accumulating()) return result;
  reducer_->reduce_now();
  apply_gradients(result);
  advance(result);
  return result;
}

void TrainStep::end_epoch(double metric) {
  if (options_.epoch_scheduler) options_.epoch_scheduler->step(metric);
}

StepResult TrainStep::evaluate(const Batch& batch) {
  const torch::NoGradGuard no_grad;
  StepResult result;
  const LossValue loss = forward_loss(batch, result.output);
  result.loss_sum = loss.sum;
  result.weight = loss.weight;
  return result;
}

TrainStep::State TrainStep::state_dict() {
  State state{optimizer_state(*optimizer_, model_->module()), {}};
  state.values.set("step", step_count_);
  if (scaler_.is_enabled()) state.values.set("scaler", scaler_.state_dict());
  if (options_.scheduler) state.values.set("scheduler", options_.scheduler->state_dict());
  if (options_.epoch_scheduler) state.values.set("epoch_scheduler", options_.epoch_scheduler->state_dict());
  return state;
}

void TrainStep::load_state_dict(const State& state) {
  const std::optional<std::int64_t> step = state.values.get<std::int64_t>("step");
  if (!step) throw DataError("[TrainStep] the saved state has no 'step'");
  load_optimizer_state(*optimizer_, model_->module(), state.optimizer);
  if (const std::optional<Config> saved = state.values.sub("scaler")) scaler_.load_state_dict(*saved);
  const auto load_scheduler = [&](const char* name, optim::LRScheduler* scheduler) {
    if (scheduler == nullptr) return;
    const std::optional<Config> saved = state.values.sub(name);
    if (!saved) throw DataError(fmt::format("[TrainStep] the saved state has no '{}'", name));
    scheduler->load_state_dict(*saved);
  };
  load_scheduler("scheduler", options_.scheduler.get());
  load_scheduler("epoch_scheduler", options_.epoch_scheduler.get());
  step_count_ = *step;
  drop();
  if (graph_) compile();  // a recording of before would go on with the state that was replaced
}

}  // namespace mmtrain
