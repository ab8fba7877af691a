// What a trained net says about files: one JSON line for each, or for each window of a long recording.
#include <fmt/format.h>
#include <mmtrain/core/error.h>
#include <mmtrain/core/log.h>
#include <mmtrain/data/data_loader.h>
#include <mmtrain/device/device.h>
#include <mmtrain/train/signals.h>
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/cli.h"
#include "common/predictor.h"
#include "common/program.h"

namespace {

using namespace mmtrain;
namespace fs = std::filesystem;
using nlohmann::ordered_json;

struct Options {
  std::string checkpoint, device = "auto";
  std::vector<std::string> paths;
  std::int64_t batch_size = 16;
  int num_workers = 2;
  programs::PredictOptions cut;
  bool follow = false;
  double idle = 0;

  void declare(programs::Cli& cli) {
    cli.add("checkpoint", checkpoint, "run directory or checkpoint of a training program");
    cli.add("device", device, "auto, cpu or cuda:N");
    cli.add("batch_size", batch_size, "files at a time");
    cli.add("num_workers", num_workers, "threads that read files");
    cli.add("window", cut.window, "seconds that long recordings are cut into, 0: one answer for a file");
    cli.add("stride", cut.stride, "seconds from window to window, 0: the window, or as in training");
    cli.add("rate", cut.rate, "samples a second of sensor recordings, 0: as they tell, or as in training");
    cli.add("follow", follow, "answer for the windows of a growing recording as they come, until a signal");
    cli.add("idle", idle, "with --follow: end after so many seconds without a new window, 0: never");
    cli.add_words("PATH", paths, "files, and folders that are searched for files");
  }
};

// Files in the order given, those of folders by name; hidden ones are left out.
std::vector<fs::path> find_files(const std::vector<std::string>& paths, const programs::Predictor& predictor) {
  std::vector<fs::path> files;
  for (const std::string& path : paths) {
    std::error_code error;
    if (!fs::is_directory(path, error)) {
      files.emplace_back(path);  // also one that is not there: it gets its line
      continue;
    }
    std::vector<fs::path> found;
    constexpr auto kSkip = fs::directory_options::skip_permission_denied;
    for (fs::recursive_directory_iterator at(path, kSkip, error), end; !error && at != end; at.increment(error)) {
      const bool hidden = at->path().filename().string().starts_with('.');
      std::error_code unknown;  // a circle of links, say: reading it gives its line
      const bool file = at->is_regular_file(unknown) || unknown;
      if (!hidden && file && predictor.takes(at->path())) found.push_back(at->path());
    }
    if (error) log::warning(fmt::format("{} was not searched to its end: {}", path, error.message()));
    std::sort(found.begin(), found.end());
    files.insert(files.end(), found.begin(), found.end());
  }
  return files;
}

ordered_json head_of(const programs::Item& item) {
  ordered_json line{{"file", item.file.string()}};
  if (item.start) {
    line["start"] = *item.start;
    line["end"] = *item.end;
  }
  return line;
}

void print(const ordered_json& line) {
  std::puts(line.dump(-1, ' ', false, ordered_json::error_handler_t::replace).c_str());
  std::fflush(stdout);  // whoever reads a pipe gets answers as they come
}

// Prints lines in the order of the items, whatever became of them.
class Printer {
 public:
  Printer(const std::vector<programs::Item>& items, const std::vector<std::string>& class_names)
      : items_(items), class_names_(class_names) {}

  void answer(std::size_t index, const torch::Tensor& probabilities, const DataLoader& loader) {
    errors_before(index, loader);
    ordered_json line = head_of(items_[index]), all;
    const auto best = static_cast<std::size_t>(probabilities.argmax().item<std::int64_t>());
    for (std::size_t k = 0; k < static_cast<std::size_t>(probabilities.numel()); ++k) {
      all[name(k)] = probabilities[static_cast<std::int64_t>(k)].item<float>();
    }
    line["class"] = name(best);
    line["probability"] = probabilities[static_cast<std::int64_t>(best)].item<float>();
    line["probabilities"] = std::move(all);
    print(line);
    next_ = index + 1;
    ++answered_;
  }

  void errors_before(std::size_t index, const DataLoader& loader) {
    if (next_ >= index) return;
    std::map<std::size_t, std::string> reasons;
    for (const SampleError& error : loader.errors()) reasons[static_cast<std::size_t>(error.index)] = error.reason;
    for (; next_ < index; ++next_) {
      ordered_json line = head_of(items_[next_]);
      line["error"] = reasons[next_];
      print(line);
    }
  }

  std::size_t answered() const { return answered_; }

 private:
  std::string name(std::size_t k) const { return k < class_names_.size() ? class_names_[k] : std::to_string(k); }

  const std::vector<programs::Item>& items_;
  const std::vector<std::string>& class_names_;
  std::size_t next_ = 0, answered_ = 0;
};

// What is needed for an answer.
struct Net {
  std::unique_ptr<programs::Predictor> predictor;
  std::shared_ptr<Model> model;
  std::vector<std::string> class_names;
  torch::Device device;
};

Net load_net(const Options& options) {
  const programs::TrainedModel trained = programs::load_trained(options.checkpoint);
  Net net{programs::make_predictor(trained), nullptr, trained.class_names, parse_devices(options.device)[0]};
  net.model = net.predictor->model();
  load_state_dict(net.model->module(), trained.weights);
  net.model->module().to(net.device);
  net.model->module().eval();
  return net;
}

// Prints a line for each item. Returns how many are answers.
std::size_t answer(const std::vector<programs::Item>& items, const Net& net, const Options& options) {
  const std::shared_ptr<const Dataset> data = net.predictor->dataset(items);
  DataLoader loader(
      data, std::make_shared<SequentialSampler>(data->size()),
      {.batch_size = options.batch_size, .num_workers = options.num_workers, .bad_samples = BadSamplePolicy::skip});
  Printer printer(items, net.class_names);
  const torch::InferenceMode inference;
  try {
    for (const Batch& batch : loader.epoch(0)) {
      const torch::Tensor answers = net.model->forward(batch.to(net.device).inputs).softmax(1).cpu();
      for (std::int64_t row = 0; row < batch.size(); ++row) {
        printer.answer(static_cast<std::size_t>(batch.ids[row].item<std::int64_t>()), answers[row], loader);
      }
    }
  } catch (const DataError&) {
    if (printer.answered() > 0) throw;  // else the loader says that no sample was good, which the lines tell too
  }
  printer.errors_before(items.size(), loader);
  return printer.answered();
}

// Reads a growing recording again and again and answers for the windows that are new.
std::size_t follow(const fs::path& file, const Net& net, const Options& options) {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::milliseconds kPause(200);
  const StopSignals signals;
  std::size_t answered = 0;
  double last_start = -1;
  for (auto last = Clock::now(); StopSignals::received() == 0; std::this_thread::sleep_for(kPause)) {
    std::vector<programs::Item> fresh;
    for (programs::Item& item : net.predictor->items(file, options.cut)) {
      if (item.start && *item.start > last_start) fresh.push_back(std::move(item));
    }
    if (!fresh.empty()) {
      last_start = *fresh.back().start;
      answered += answer(fresh, net, options);
      last = Clock::now();
    } else if (options.idle > 0 && std::chrono::duration<double>(Clock::now() - last).count() > options.idle) {
      break;
    }
  }
  return answered;
}

int predict(int argc, char** argv) {
  Options options;
  programs::Cli cli("mmtrain_predict", "Classifies files with a trained net; prints one JSON line for each.");
  options.declare(cli);
  if (const std::optional<int> done = cli.parse(argc, argv)) return *done;
  if (options.checkpoint.empty()) throw ConfigError("--checkpoint is needed: a run directory or a checkpoint");
  if (options.paths.empty()) throw ConfigError("name files or folders to classify");
  const bool finite = std::isfinite(options.cut.window) && std::isfinite(options.cut.stride) &&
                      std::isfinite(options.cut.rate) && std::isfinite(options.idle);
  if (!finite || options.cut.window < 0 || options.cut.stride < 0 || options.cut.rate < 0 || options.idle < 0) {
    throw ConfigError("--window, --stride, --rate and --idle must not be negative");
  }
  if (options.follow && options.paths.size() != 1) throw ConfigError("--follow takes one recording");
  log::set_level(log::Level::warning);  // nothing but answers on stdout
  options.cut.growing = options.follow;

  const Net net = load_net(options);
  if (options.follow) return follow(options.paths.front(), net, options) > 0 ? 0 : 1;
  std::vector<programs::Item> items;
  for (const fs::path& file : find_files(options.paths, *net.predictor)) {
    const std::vector<programs::Item> parts = net.predictor->items(file, options.cut);
    items.insert(items.end(), parts.begin(), parts.end());
  }
  if (items.empty()) throw DataError("there is no file of the kind that the net was trained on");
  return answer(items, net, options) > 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  return programs::run_program([&](mmtrain::OutOfMemoryContext&) { return predict(argc, argv); });
}
