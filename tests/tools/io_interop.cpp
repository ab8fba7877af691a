// Does what tests/python/io_interop.py asks: `copy IN OUT [map]`, `check FILE...`, `events FOLDER`, `progress`.

#include <chrono>
#include <cstdio>
#include <iostream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "mmtrain/core/error.h"
#include "mmtrain/core/log.h"
#include "mmtrain/core/progress.h"
#include "mmtrain/io/event_writer.h"
#include "mmtrain/io/safetensors.h"
#include "mmtrain/io/tensor_file.h"

namespace {

using Arguments = std::vector<std::string>;

void copy(const Arguments& arguments) {
  const bool map = arguments.size() > 2 && arguments[2] == "map";
  const auto tensors =
      mmtrain::load_safetensors(arguments.at(0), map ? mmtrain::TensorLoad::map : mmtrain::TensorLoad::copy);
  mmtrain::save_safetensors(arguments.at(1), tensors, mmtrain::SafetensorsFile(arguments.at(0)).metadata());
}

// One line a file: "ok" or why it is refused.
void check(const Arguments& arguments) {
  for (const std::string& path : arguments) {
    try {
      mmtrain::load_safetensors(path);
      std::cout << "ok\n";
    } catch (const mmtrain::DataError& error) {
      std::cout << error.what() << '\n';
    }
  }
}

void write_events(const Arguments& arguments) {
  mmtrain::EventWriter writer(arguments.at(0));
  for (int step = 0; step < 300; ++step) writer.add_scalar("loss/train", 1.0 / (step + 1), step);
  writer.add_scalar("Größe", -1e30, std::int64_t{1} << 40);
  writer.add_scalar("negative step", 0.25, -1);
  writer.add_text("notes", "**bold** " + std::string(500, 'x'), 7);
}

void show_progress(const Arguments&) {
  mmtrain::ProgressLine progress("epoch 1/2", 3, {.redraw_interval = std::chrono::milliseconds(0)});
  progress.update(1, "loss 1.5");
  mmtrain::log::info("a line of the log");
  mmtrain::log::warning("a warning");
  progress.update(2, "loss 1.25");
  progress.finish();
  mmtrain::log::info("the end");
}

}  // namespace

int main(int count, char** values) {
  const Arguments arguments(values + std::min(count, 2), values + count);
  const std::string_view command = count > 1 ? values[1] : "";
  try {
    if (command == "copy") {
      copy(arguments);
    } else if (command == "check") {
      check(arguments);
    } else if (command == "events") {
      write_events(arguments);
    } else if (command == "progress") {
      show_progress(arguments);
    } else {
      std::cerr << "unknown command\n";
      return 2;
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
