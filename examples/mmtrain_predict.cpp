// What a trained net says about files: one JSON line for each, or for each window of a long recording.
#include <fmt/format.h>
#include <mmtrain/core/error.h>
#include <mmtrain/core/log.h>
#include <mmtrain/data/data_loader.h>
#include <mmtrain/device/device.h>
#include <torch/torch.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
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

  void declare(programs::Cli& cli) {
    cli.add("checkpoint", checkpoint, "run directory or checkpoint of a training program");
    cli.add("device", device, "auto, cpu or cuda:N");
    cli.add("batch_size", batch_size, "files at a time");
    cli.add("num_workers", num_workers, "threads that read files");
    cli.add("window", cut.window, "seconds that long recordings are cut into, 0: one answer for a file");
    cli.add("stride", cut.stride, "seconds from window to window, 0: the window");
    cli.add_words("PATH", paths, "files, and folders that are searched for files");
  }
};

// Files in the order given, those of folders by name; hidden ones are left out.
std::vector<fs::path> find_files(const std::vector<std::string>& paths, const programs::Predictor& predictor) {
  std::vector<fs::path> files;
  for (const std::string& path : paths) {
    if (!fs::is_directory(path)) {
      files.emplace_back(path);  // also one that is not there: it gets its line
      continue;
    }
    std::vector<fs::path> found;
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(path)) {
      const bool hidden = entry.path().filename().string().starts_with('.');
      if (!hidden && entry.is_regular_file() && predictor.takes(entry.path())) found.push_back(entry.path());
    }
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

int predict(int argc, char** argv) {
  Options options;
  programs::Cli cli("mmtrain_predict", "Classifies files with a trained net; prints one JSON line for each.");
  options.declare(cli);
  if (const std::optional<int> done = cli.parse(argc, argv)) return *done;
  if (options.checkpoint.empty()) throw ConfigError("--checkpoint is needed: a run directory or a checkpoint");
  if (options.paths.empty()) throw ConfigError("name files or folders to classify");
  if (options.cut.window < 0 || options.cut.stride < 0) throw ConfigError("--window and --stride must not be negative");
  log::set_level(log::Level::warning);  // nothing but answers on stdout

  const torch::Device device = parse_devices(options.device)[0];
  const programs::TrainedModel trained = programs::load_trained(options.checkpoint);
  const std::unique_ptr<programs::Predictor> predictor = programs::make_predictor(trained);
  std::vector<programs::Item> items;
  for (const fs::path& file : find_files(options.paths, *predictor)) {
    const std::vector<programs::Item> parts = predictor->items(file, options.cut);
    items.insert(items.end(), parts.begin(), parts.end());
  }
  if (items.empty()) throw DataError("there is no file of the kind that the net was trained on");

  const std::shared_ptr<Model> model = predictor->model();
  load_state_dict(model->module(), trained.weights);
  model->module().to(device);
  model->module().eval();
  const std::shared_ptr<const Dataset> data = predictor->dataset(items);
  DataLoader loader(
      data, std::make_shared<SequentialSampler>(data->size()),
      {.batch_size = options.batch_size, .num_workers = options.num_workers, .bad_samples = BadSamplePolicy::skip});
  Printer printer(items, trained.class_names);
  const torch::InferenceMode inference;
  try {
    for (const Batch& batch : loader.epoch(0)) {
      const torch::Tensor answers = model->forward(batch.to(device).inputs).softmax(1).cpu();
      for (std::int64_t row = 0; row < batch.size(); ++row) {
        printer.answer(static_cast<std::size_t>(batch.ids[row].item<std::int64_t>()), answers[row], loader);
      }
    }
  } catch (const DataError&) {
    if (printer.answered() > 0) throw;  // else the loader says that no sample was good, which the lines tell too
  }
  printer.errors_before(items.size(), loader);
  return printer.answered() > 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  return programs::run_program([&](mmtrain::OutOfMemoryContext&) { return predict(argc, argv); });
}
