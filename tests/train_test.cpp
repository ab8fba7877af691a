#include "mmtrain/train/trainer.h"

#include <signal.h>
#include <sys/resource.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <set>

#include "catch.h"
#include "mmtrain/core/error.h"
#include "mmtrain/core/log.h"
#include "mmtrain/io/tensor_file.h"
#include "mmtrain/nn/dropout.h"
#include "mmtrain/optim/adam.h"
#include "mmtrain/optim/param_groups.h"
#include "mmtrain/train/checkpoint.h"
#include "mmtrain/train/loggers.h"
#include "mmtrain/train/optimizer_state.h"
#include "mmtrain/train/run_directory.h"
#include "mmtrain/train/signals.h"
#include "temp_dir.h"

namespace fs = std::filesystem;
using namespace mmtrain;
using fixtures::TempDir;

namespace {

// Two noisy classes of points, different in every epoch through the sample's random stream.
class Points final : public Dataset {
 public:
  explicit Points(std::int64_t size) : size_(size) {}
  DatasetSpec spec() const override { return {{{"x", {6}, torch::kFloat32}}, {"target", {}, torch::kInt64}}; }
  std::int64_t size() const override { return size_; }
  void write(std::int64_t index, SampleSlot& slot) const override {
    if (broken.contains(index)) throw DataError("planted fault");
    const std::int64_t label = index % 3;
    for (float& value : slot.input<float>(0)) value = static_cast<float>(slot.random().normal());
    slot.input<float>(0)[static_cast<std::size_t>(label)] += 2.0F;
    if (index == poisoned) slot.input<float>(0)[0] = std::numeric_limits<float>::infinity();
    slot.target<std::int64_t>()[0] = label;
  }
  std::vector<std::string> class_names() const override { return {"a", "b", "c"}; }

  std::set<std::int64_t> broken;
  std::int64_t poisoned = -1;

 private:
  std::int64_t size_;
};

struct NetImpl : torch::nn::Module {
  NetImpl()
      : body(register_module(
            "body", torch::nn::Sequential(torch::nn::Linear(6, 16), torch::nn::BatchNorm1d(16), torch::nn::ReLU(),
                                          torch::nn::Dropout(0.3), torch::nn::Linear(16, 3)))) {}
  torch::Tensor forward(const torch::Tensor& x) { return body->forward(x); }
  torch::nn::Sequential body;
};
TORCH_MODULE(Net);

// Everything one run consists of, made afresh as a new process would.
struct Run {
  Net net;
  std::shared_ptr<Points> data = std::make_shared<Points>(50);
  DataLoader train, val;
  Trainer trainer;

  static Net seeded() {
    torch::manual_seed(7);
    return Net();
  }
  static std::shared_ptr<torch::optim::Optimizer> optimizer(const Net& net, const std::string& kind) {
    if (kind == "mmtrain") return std::make_shared<optim::Adam>(optim::named_groups(*net), optim::AdamOptions(0.01));
    if (kind == "sgd") {
      return std::make_shared<torch::optim::SGD>(net->parameters(), torch::optim::SGDOptions(0.05).momentum(0.9));
    }
    return std::make_shared<torch::optim::Adam>(net->parameters(), torch::optim::AdamOptions(0.01).weight_decay(1e-3));
  }

  explicit Run(TrainerOptions options, const std::string& kind = "adam", int workers = 0)
      : net(seeded()),
        train(data, std::make_shared<RandomSampler>(50, 3),
              {.batch_size = 8, .num_workers = workers, .bad_samples = BadSamplePolicy::skip, .seed = 3}),
        val(data, std::make_shared<SequentialSampler>(50),
            {.batch_size = 16, .bad_samples = BadSamplePolicy::skip, .seed = 4}),
        trainer(as_model(net), optimizer(net, kind), cross_entropy_loss(),
                (options.progress = false, std::move(options))) {}

  FitResult fit() { return trainer.fit(train, val); }
};

void require_equal(const StateDict& a, const StateDict& b) {
  REQUIRE(a.keys() == b.keys());
  for (const auto& item : a) {
    INFO(item.key());
    REQUIRE(torch::equal(item.value(), b[item.key()]));
  }
}

// Raises `signal` after the given number of first-batch and epoch events, through the loss, which runs every step.
Loss interrupting_loss(int after_steps, int signal) {
  auto left = std::make_shared<int>(after_steps);
  return [left, signal, loss = cross_entropy_loss()](const torch::Tensor& output, const Batch& batch) {
    if (output.requires_grad() && --*left == 0) ::raise(signal);
    return loss(output, batch);
  };
}

}  // namespace

TEST_CASE("A training step equals a plain LibTorch loop bit for bit", "[train]") {
  torch::manual_seed(1);
  Net ours, theirs;
  {
    torch::NoGradGuard guard;
    for (auto& item : theirs->named_parameters()) item.value().copy_(ours->named_parameters()[item.key()]);
  }
  auto mine = std::make_shared<torch::optim::SGD>(ours->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
  torch::optim::SGD other(theirs->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
  TrainStep step(as_model(ours), mine, cross_entropy_loss());
  for (int k = 0; k < 5; ++k) {
    Batch batch;
    batch.inputs.insert("x", torch::randn({8, 6}));
    batch.target = torch::randint(3, {8});
    torch::manual_seed(k);
    const StepResult result = step.run(batch);
    torch::manual_seed(k);
    const torch::Tensor loss =
        torch::nn::functional::cross_entropy(theirs->forward(batch.inputs[0].value()), batch.target,
                                             torch::nn::functional::CrossEntropyFuncOptions().reduction(torch::kSum)) /
        8;
    loss.backward();
    other.step();
    other.zero_grad();
    REQUIRE((result.loss_sum / result.weight).item<float>() == loss.item<float>());
  }
  require_equal(state_dict(*ours), state_dict(*theirs));
}

TEST_CASE("Rows of weight zero change neither loss nor gradient, whatever they hold", "[train][loss]") {
  const torch::Tensor logits = torch::randn({5, 3}), target = torch::tensor({0, 1, 2, 0, 1});
  torch::Tensor padded = torch::cat({logits, torch::full({1, 3}, -INFINITY)}).requires_grad_();
  torch::Tensor plain = logits.clone().requires_grad_();
  const LossValue a = nn::cross_entropy(plain, target);
  const LossValue b =
      nn::cross_entropy(padded, torch::cat({target, torch::tensor({0})}), torch::tensor({1., 1., 1., 1., 1., 0.}));
  (a.sum / a.weight).backward();
  (b.sum / b.weight).backward();
  REQUIRE(b.weight.item<double>() == 5);
  REQUIRE(a.sum.item<float>() == Approx(b.sum.item<float>()));
  REQUIRE(torch::allclose(plain.grad(), padded.grad().narrow(0, 0, 5)));
}

TEST_CASE("The trainer learns, validates, records every epoch and keeps the best weights", "[train]") {
  TempDir dir;
  Run run({.epochs = 6, .run_dir = dir.path()});
  run.trainer.add(std::make_shared<CsvLogger>());
  const FitResult result = run.fit();
  REQUIRE(result.history.size() == 6);
  REQUIRE(result.history.back().train_loss < 0.8 * result.history.front().train_loss);
  REQUIRE(result.best_val_acc > 0.7);
  REQUIRE(result.history.back().global_step == 6 * 7);
  // The stored best weights give the recorded accuracy again.
  load_state_dict(*run.net, load_weights(dir / "checkpoints/best"));
  REQUIRE(run.trainer.evaluate(run.val).accuracy == result.best_val_acc);
  std::ifstream csv(dir / "metrics.csv");
  std::string line;
  std::getline(csv, line);
  REQUIRE(line.starts_with("epoch,train_loss,train_acc,val_loss,val_acc,"));
  int rows = 0;
  while (std::getline(csv, line)) ++rows;
  REQUIRE(rows == 6);
}

TEST_CASE("A resumed run equals an unbroken one bit for bit, wherever it was interrupted", "[train][resume]") {
  const std::string kind = GENERATE("adam", "sgd");
  const int interrupted_after = GENERATE(3, 7, 17);  // inside an epoch of 7 steps, at its end, in a later one
  TempDir whole, broken;
  Run unbroken({.epochs = 4, .run_dir = whole.path()}, kind);
  const FitResult expected = unbroken.fit();

  {
    const StopSignals signals;
    Run first({.epochs = 4, .run_dir = broken.path()}, kind);
    Trainer trainer(as_model(first.net), Run::optimizer(first.net, kind), interrupting_loss(interrupted_after, SIGTERM),
                    {.epochs = 4, .run_dir = broken.path(), .progress = false});
    const FitResult partial = trainer.fit(first.train, first.val);
    REQUIRE(partial.signal == SIGTERM);
  }
  torch::manual_seed(999);  // a new process starts elsewhere in the generator
  Run second({.epochs = 4, .run_dir = broken.path()}, kind, /*workers=*/2);
  torch::rand({13});
  second.trainer.resume(broken / "checkpoints/last");
  const FitResult actual = second.fit();

  require_equal(state_dict(*unbroken.net), state_dict(*second.net));
  REQUIRE(actual.history.size() == expected.history.size());
  for (std::size_t k = 0; k < expected.history.size(); ++k) {
    REQUIRE(actual.history[k].train_loss == expected.history[k].train_loss);
    REQUIRE(actual.history[k].train_acc == expected.history[k].train_acc);
    REQUIRE(actual.history[k].val_loss == expected.history[k].val_loss);
    REQUIRE(actual.history[k].global_step == expected.history[k].global_step);
  }
  REQUIRE(actual.best_epoch == expected.best_epoch);
  require_equal(load_checkpoint(whole / "checkpoints/last").optimizer,
                load_checkpoint(broken / "checkpoints/last").optimizer);
}

TEST_CASE("A run with every part of the step resumes bit for bit", "[train][resume]") {
  const int interrupted_after = GENERATE(5, 16);  // micro-batches of 7 an epoch, three to a step
  const auto step_options = [](torch::optim::Optimizer& adam) {
    return TrainStepOptions{
        .precision = {.scaler = true},
        .scaler = {.growth_interval = 3},
        .clip_norm = 0.5,
        .ema = optim::EmaOptions{.decay = 0.8},
        .scheduler = std::make_shared<optim::ScheduledLR>(adam, optim::warmup_lr(3, optim::cosine_lr(9))),
        .seed = 21};
  };
  TempDir whole, broken;
  const auto run = [&](const fs::path& dir, const Loss& loss, bool resume) {
    Run parts({.epochs = 4}, "mmtrain");
    const auto adam = Run::optimizer(parts.net, "mmtrain");
    Trainer trainer(as_model(parts.net), adam, loss,
                    {.epochs = 4, .accumulation_steps = 3, .run_dir = dir, .progress = false}, step_options(*adam));
    if (resume) trainer.resume(dir / "checkpoints/last");
    return trainer.fit(parts.train, parts.val);
  };
  const FitResult expected = run(whole.path(), cross_entropy_loss(), false);
  REQUIRE(expected.history.back().global_step == 4 * 3);
  REQUIRE(expected.history.back().grad_norm > 0);
  {
    const StopSignals signals;
    const FitResult partial = run(broken.path(), interrupting_loss(interrupted_after, SIGTERM), false);
    REQUIRE(partial.signal == SIGTERM);
  }
  const FitResult actual = run(broken.path(), cross_entropy_loss(), true);
  REQUIRE(actual.history.size() == 4);
  for (std::size_t k = 0; k < 4; ++k) {
    REQUIRE(actual.history[k].train_loss == expected.history[k].train_loss);
    REQUIRE(actual.history[k].val_loss == expected.history[k].val_loss);
    REQUIRE(actual.history[k].grad_norm == expected.history[k].grad_norm);
    REQUIRE(actual.history[k].lr == expected.history[k].lr);
  }
  const Checkpoint a = load_checkpoint(whole / "checkpoints/last"), b = load_checkpoint(broken / "checkpoints/last");
  require_equal(a.model, b.model);  // the averages
  require_equal(a.optimizer, b.optimizer);
  REQUIRE_FALSE(a.model["body.0.weight"].equal(a.optimizer["weights/body.0.weight"]));
}

TEST_CASE("With an average of weights, it is what validation measures and checkpoints hold", "[train][ema]") {
  TempDir dir;
  Run run({.epochs = 1}, "mmtrain");
  Trainer trainer(as_model(run.net), Run::optimizer(run.net, "mmtrain"), cross_entropy_loss(),
                  {.epochs = 5, .run_dir = dir.path(), .progress = false}, {.ema = optim::EmaOptions{.decay = 0.9}});
  const FitResult result = trainer.fit(run.train, run.val);
  load_state_dict(*run.net, load_weights(dir / "checkpoints/best"));
  const MetricValues again = trainer.evaluate(run.val);
  REQUIRE(again.accuracy == result.best_val_acc);
  REQUIRE(again.loss == result.history[static_cast<std::size_t>(result.best_epoch - 1)].val_loss);
}

TEST_CASE("Schedulers of epochs follow the validation loss and show in the record", "[train]") {
  Net net = Run::seeded();
  const auto adam = Run::optimizer(net, "mmtrain");
  Run parts({.epochs = 1});
  Trainer trainer(as_model(net), adam, cross_entropy_loss(), {.epochs = 5, .progress = false},
                  {.epoch_scheduler = std::make_shared<optim::ScheduledLR>(*adam, optim::step_lr(2, 0.1))});
  const FitResult result = trainer.fit(parts.train, parts.val);
  const double expected[] = {1e-2, 1e-2, 1e-3, 1e-3, 1e-4};
  for (std::size_t k = 0; k < 5; ++k) REQUIRE(result.history[k].lr == Approx(expected[k]));
}

TEST_CASE("Optimizer state survives by parameter name, not by position", "[train][checkpoint]") {
  torch::manual_seed(2);
  Net net;
  torch::optim::Adam adam(net->parameters(), 0.01);
  net->forward(torch::randn({4, 6})).sum().backward();
  adam.step();
  const StateDict saved = optimizer_state(adam, *net);

  std::vector<torch::Tensor> reversed = net->parameters();
  std::reverse(reversed.begin(), reversed.end());
  torch::optim::Adam other(reversed, 0.01);
  load_optimizer_state(other, *net, saved);
  StateDict again = optimizer_state(other, *net);
  REQUIRE(again.size() == saved.size());
  for (const auto& item : saved) REQUIRE(torch::equal(item.value(), again[item.key()]));

  StateDict misshaped = saved;
  misshaped["body.0.weight/exp_avg"] = torch::zeros({2, 2});
  REQUIRE_THROWS_WITH(load_optimizer_state(other, *net, misshaped), Catch::Contains("body.0.weight/exp_avg"));
  StateDict foreign;
  foreign.insert("unknown/exp_avg", torch::zeros({1}));
  REQUIRE_THROWS_AS(load_optimizer_state(other, *net, foreign), DataError);
}

TEST_CASE("A failed save names the cause and keeps the former checkpoint", "[train][checkpoint]") {
  TempDir dir;
  Checkpoint checkpoint;
  checkpoint.model.insert("w", torch::ones({1000}));
  checkpoint.state = "{}";
  save_checkpoint(dir / "last", checkpoint);

  // A file size limit stands for a full disk: writes beyond it fail in the same way.
  checkpoint.model["w"] = torch::zeros({1000000});
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{100000, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  std::string message;
  try {
    save_checkpoint(dir / "last", checkpoint);
  } catch (const Error& error) {
    message = error.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  REQUIRE_THAT(message, Catch::Contains("was not saved") && Catch::Contains("last"));
  REQUIRE(torch::equal(load_checkpoint(dir / "last").model["w"], torch::ones({1000})));
  REQUIRE(std::distance(fs::directory_iterator(dir.path()), {}) == 1);
}

TEST_CASE("A torn checkpoint is an error that names the file", "[train][checkpoint]") {
  TempDir dir;
  Run run({.epochs = 1, .run_dir = dir.path()});
  run.fit();
  const fs::path last = dir / "checkpoints/last";
  SECTION("state cut") {
    std::ofstream(last / "state.json") << "{\"format\": 1,";
    REQUIRE_THROWS_WITH(run.trainer.resume(last), Catch::Contains("state.json"));
  }
  SECTION("weights cut") {
    fs::resize_file(last / "model.safetensors", 50);
    REQUIRE_THROWS_WITH(run.trainer.resume(last), Catch::Contains("model.safetensors"));
  }
  SECTION("file missing") {
    fs::remove(last / "optimizer.safetensors");
    REQUIRE_THROWS_AS(run.trainer.resume(last), DataError);
  }
}

TEST_CASE("Broken samples are skipped and counted; a split without a good one is an error", "[train]") {
  Run run({.epochs = 1});
  const std::vector<std::int64_t> order = RandomSampler(50, 3).indices(0);
  run.data->broken = {order[0], order[1]};  // in the first batch: the last keeps the two rows BatchNorm1d needs
  const FitResult result = run.fit();
  REQUIRE(result.history[0].skipped_samples == 2);
  for (std::int64_t k = 0; k < 50; ++k) run.data->broken.insert(k);
  Run empty({.epochs = 1});
  empty.data->broken = run.data->broken;
  REQUIRE_THROWS_WITH(empty.fit(), Catch::Contains("not one of the 50 samples can be read"));
}

TEST_CASE("Early stopping ends a run that does not improve", "[train]") {
  Run run({.epochs = 50, .early_stopping_patience = 2});
  for (auto& parameter : run.net->parameters()) parameter.requires_grad_(false).zero_();
  run.net->body[4]->as<torch::nn::Linear>()->bias.requires_grad_();
  const FitResult result = run.fit();
  REQUIRE(result.stopped_early);
  REQUIRE(result.history.size() < 50);
  REQUIRE(static_cast<std::int64_t>(result.history.size()) == result.best_epoch + 2);
}

TEST_CASE("Validation and checkpoints that stay come at their intervals", "[train]") {
  TempDir dir;
  fs::create_directories(dir / "run");
  Config about;
  about.set("program", "test");
  Run run(
      {.epochs = 5, .val_interval = 2, .log_interval = 1, .save_interval = 2, .run_dir = dir / "run", .about = about});
  const FitResult result = run.fit();
  REQUIRE(result.history.size() == 5);
  for (const EpochRecord& record : result.history) {
    INFO(record.epoch);
    // Each second epoch, and the last.
    CHECK(std::isnan(record.val_acc) == (record.epoch == 1 || record.epoch == 3));
    if (std::isnan(record.val_acc)) CHECK_FALSE(record.best);
    CHECK(fs::exists(dir / "run" / "checkpoints" / ("epoch_00" + std::to_string(record.epoch))) ==
          (record.epoch == 2 || record.epoch == 4));
  }
  const std::string state = load_checkpoint(dir / "run" / "checkpoints" / "epoch_002").state;
  CHECK_THAT(state, Catch::Contains("\"class_names\"") && Catch::Contains("\"c\"") &&
                        Catch::Contains("\"program\": \"test\""));
  CHECK_THROWS_WITH(Run({.val_interval = 0}), Catch::Contains("val_interval must be positive"));
}

TEST_CASE("A resumed run knows the loss of the last validation", "[train][resume]") {
  TempDir dir;
  fs::create_directories(dir / "parts");
  const auto plateau = [](std::int64_t epochs, const fs::path& run_dir) {
    return TrainerOptions{.epochs = epochs, .val_interval = 3, .run_dir = run_dir};
  };
  Run whole(plateau(12, {}));
  const FitResult unbroken = whole.fit();
  { Run(plateau(6, dir / "parts")).fit(); }
  Run again(plateau(12, dir / "parts"));
  again.trainer.resume(dir / "parts" / "checkpoints" / "last");
  const FitResult resumed = again.fit();
  require_equal(state_dict(*again.net), state_dict(*whole.net));
  CHECK(resumed.best_epoch == unbroken.best_epoch);
}

TEST_CASE("Records tell the learning rate of each group and the memory of each device", "[train]") {
  struct Watcher final : Callback {
    void on_epoch_end(const EpochRecord& record) override { last = record; }
    EpochRecord last;
  };
  TempDir dir;
  Run run({.epochs = 1});
  const auto optimizer = std::make_shared<optim::Adam>(
      optim::named_groups(*run.net, {{.prefix = "body.0.", .lr = 0.25, .name = "first"}}), optim::AdamOptions(0.125));
  Trainer trainer(as_model(run.net), optimizer, cross_entropy_loss(), {.epochs = 1, .run_dir = {}, .progress = false});
  const auto watcher = std::make_shared<Watcher>();
  trainer.add(watcher);
  trainer.add(std::make_shared<TensorBoardLogger>(dir / "events"));
  trainer.fit(run.train, run.val);
  REQUIRE(watcher->last.group_rates.size() == 2);
  CHECK(watcher->last.group_rates[0].group == "first");
  CHECK(watcher->last.group_rates[0].lr == 0.25);
  CHECK(watcher->last.group_rates[1].group == "default");
  REQUIRE(watcher->last.memory.size() == 1);
  CHECK(watcher->last.memory[0].device == "cpu");
  CHECK(watcher->last.memory[0].memory.allocated > 0);
  std::string events;
  for (const auto& entry : fs::directory_iterator(dir / "events")) {
    std::ifstream file(entry.path(), std::ios::binary);
    events.append(std::istreambuf_iterator<char>(file), {});
  }
  for (const char* tag : {"lr/first", "lr/default", "memory_mib/cpu/allocated", "f1_weighted/val"}) {
    CHECK_THAT(events, Catch::Contains(tag));
  }
}

TEST_CASE("Limits cut epochs, and options out of range are refused by name", "[train]") {
  Run run({.epochs = 1, .limit_train_batches = 2, .limit_val_batches = 1});
  REQUIRE(run.fit().history[0].global_step == 2);
  REQUIRE_THROWS_WITH(Run({.epochs = 0}), Catch::Contains("epochs must be positive, got 0"));
}

TEST_CASE("Run directories are numbered, and the newest unfinished one is found", "[train][run]") {
  TempDir dir;
  const fs::path first = create_run_directory(dir.path(), "net");
  const fs::path second = create_run_directory(dir.path(), "net");
  const fs::path other = create_run_directory(dir.path(), "net-work");
  REQUIRE(first.filename() == "net");
  REQUIRE(second.filename() == "net-2");
  REQUIRE_FALSE(find_run(dir.path(), "net"));
  for (const fs::path& path : {first, second, other}) {
    fs::create_directories(path / "checkpoints/last");
    std::ofstream(path / "checkpoints/last/state.json") << "{}";
  }
  const auto now = fs::file_time_type::clock::now();
  fs::last_write_time(first / "checkpoints/last/state.json", now - std::chrono::seconds(10));
  REQUIRE(find_run(dir.path(), "net")->path == second);
  finish_run(second, "{\"a\":1}");
  REQUIRE(find_run(dir.path(), "net")->path == first);
  finish_run(first, "{}");
  REQUIRE(find_run(dir.path(), "net")->finished);
  REQUIRE_THROWS_AS(create_run_directory("/proc/none", "x"), ConfigError);
  REQUIRE_THROWS_AS(create_run_directory(dir.path(), "a/b"), ConfigError);
}

TEST_CASE("Channels-last training gives the numbers of contiguous training", "[train]") {
  const auto losses = [](bool channels_last) {
    torch::manual_seed(5);
    torch::nn::Sequential net(torch::nn::Conv2d(torch::nn::Conv2dOptions(3, 8, 3).padding(1)),
                              torch::nn::BatchNorm2d(8), torch::nn::ReLU(), torch::nn::AdaptiveAvgPool2d(1),
                              torch::nn::Flatten(), torch::nn::Linear(8, 4));
    auto sgd = std::make_shared<torch::optim::SGD>(net->parameters(), 0.1);
    TrainStep step(as_model(net), sgd, cross_entropy_loss(), {.channels_last = channels_last});
    std::vector<float> result;
    for (int k = 0; k < 4; ++k) {
      Batch batch;
      batch.inputs.insert("image", torch::randn({6, 3, 10, 10}));
      batch.target = torch::randint(4, {6});
      const StepResult outcome = step.run(batch);
      result.push_back((outcome.loss_sum / outcome.weight).item<float>());
    }
    return result;
  };
  const auto a = losses(false), b = losses(true);
  for (std::size_t k = 0; k < a.size(); ++k) REQUIRE(a[k] == Approx(b[k]).epsilon(1e-5));
}

TEST_CASE("A loss that stays broken ends the run with the name of the batch where it began", "[train]") {
  Run run({.epochs = 20, .max_broken_losses = 3});
  run.data->poisoned = 17;  // what the weights become spoils all later batches
  std::string text;
  try {
    run.fit();
  } catch (const Error& error) {
    text = error.what();
  }
  const std::vector<std::int64_t> order = RandomSampler(50, 3).indices(0);
  const auto batch = std::distance(order.begin(), std::find(order.begin(), order.end(), 17)) / 8;
  using Catch::Matchers::Contains;
  CHECK_THAT(text, Contains("3 batches in a row") && Contains("batch " + std::to_string(batch + 1) + " of epoch 1"));
  CHECK_THAT(text, Contains("sample " + std::to_string(order[static_cast<std::size_t>(8 * batch)])));

  // Once in a while is no reason to stop, and 0 never stops.
  Run patient({.epochs = 1, .max_broken_losses = 0});
  patient.data->poisoned = 17;
  CHECK(std::isnan(patient.fit().history.back().train_loss));
  CHECK_THROWS_AS(Run({.epochs = 1, .max_broken_losses = -1}), ConfigError);
}
