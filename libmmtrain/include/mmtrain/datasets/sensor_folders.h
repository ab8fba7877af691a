#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "mmtrain/core/export.h"

/// Recordings of body-worn sensors in folders, as people keep them, cut into labelled windows.
///
/// **Text** `*.txt`: a header line, then six numbers a line (PPG green, infrared, red, IMU X, Y, Z). The name says
/// place and behavior, `耳道-咳嗽共6次间隔10秒.txt`, in UTF-8 or GBK. Recordings of the ear are cut into windows; that
/// of the throat with the same name, if there is one, says when the behavior happens: a window in which it fills less
/// than half is rest. Drinking counts as swallowing where it is no class of its own.
///
/// **Text with an event file** (see `event_file.h`): the windows are the events, all of the median length; longer ones
/// lose both ends, shorter ones are filled with zeros.
///
/// **CSV** with a header: the columns are channels, except `label`, `person` (or `subject`, `user`) and `time` (or
/// `timestamp`). Without a column the label is in the file's name, `<LABEL>_<i>.csv`, else it is the folder's.
///
/// **UCI HAR**: the folder that holds `train/Inertial Signals`; its own windows, people and split.
///
/// Whose recordings a folder holds is its name without `_data`; every folder is read to its depths. Hidden files, those
/// of other kinds, and folders `training_results_*`, which runs leave, are ignored. Whatever else is left out is
/// counted and named in `SensorData::problems`.
namespace mmtrain::datasets {

enum class Cleaning {
  automatic,  ///< the six channels of text recordings only
  off
};

struct SensorOptions {
  double window_seconds = 5;
  double overlap = 0.5;  ///< share of a window that the next one has too, in [0, 1)
  /// Samples a second that all recordings are brought to, and the rate of those that do not tell theirs. 0: 100 for
  /// windows of text recordings; events and CSV keep the rates they have (100 where it is not known).
  double rate = 0;
  Cleaning cleaning = Cleaning::automatic;
  /// Labels by an event file. "auto": the `events_config.json` of each folder. Empty: not, but if there is such a file
  /// it tells the true rates.
  std::string events = {};
  /// Classes by index. Empty: rest, chew, cough, swallow for windows of text recordings; chew, drink, cough, swallow,
  /// talk, other for events; otherwise the labels found, in alphabetical order.
  std::vector<std::string> class_names = {};
  /// Of a larger file only the beginning is read, so that none takes more memory than its share.
  std::uintmax_t max_file_bytes = 256 << 20;
  int threads = 0;  ///< that read and clean; 0: all the machine has
};

/// One recording, cleaned, at `rate`.
struct SensorRecording {
  std::string path;    ///< as messages call it, UTF-8
  std::string person;  ///< whose it is
  std::string part;    ///< "train" or "test" where the layout has a split of its own
  double rate = 0;     ///< samples a second
  std::int64_t rows = 0;
  std::vector<float> samples = {};  ///< `[rows, channels]`
};

/// A labelled piece of a recording.
struct SensorWindow {
  std::int64_t recording = 0;  ///< index into `SensorData::recordings`
  std::int64_t first_row = 0;
  std::int64_t rows = 0;  ///< at most `SensorData::window_rows`; what is missing is filled with zeros on both sides
  std::int64_t label = 0;
  double begin = 0, end = 0;  ///< seconds
};

/// Something that was left out or looks wrong.
struct SensorProblem {
  std::string path;
  std::string reason;
};

struct SensorData {
  std::vector<std::string> channels;
  std::vector<std::string> class_names;
  double rate = 0;                 ///< samples a second of the windows (the median where they differ)
  double file_rate = 0;            ///< samples a second that the files usually have
  std::int64_t window_rows = 0;    ///< of every window
  bool cleaned = false;            ///< the filters of `clean_sensors` were applied
  std::int64_t without_notch = 0;  ///< files so cleaned whose rate is too low to hold the power line's 50 Hz
  std::vector<SensorRecording> recordings;
  std::vector<SensorWindow> windows;
  std::vector<SensorProblem> problems;
  std::int64_t skipped_files = 0, malformed_lines = 0;

  std::int64_t num_channels() const { return static_cast<std::int64_t>(channels.size()); }
};

/// Reads all recordings of `folders`. Files that cannot be used are problems, not errors; `DataError` is thrown for a
/// folder that is not there or cannot be read, and when nothing usable is left; `ConfigError` for options out of range.
MMTRAIN_API SensorData read_sensor_folders(const std::vector<std::filesystem::path>& folders,
                                           const SensorOptions& options = {});

/// Folders whose path fits `pattern` with `*`, `?` and `[...]`, in order. Throws `DataError` if there are none.
MMTRAIN_API std::vector<std::filesystem::path> glob_folders(const std::string& pattern);

/// A recording alone, text or CSV, whatever its name says, brought to `rate` samples a second. It has `file_rate`, or
/// if that is 0 what a column of times or its name tells, or else `usual_rate`. Text is cleaned if `clean`. What looks
/// wrong goes to `problems`. Throws `DataError` with the reason if there is nothing usable.
MMTRAIN_API SensorRecording read_sensor_recording(const std::filesystem::path& file, double rate, double file_rate,
                                                  bool clean, std::vector<SensorProblem>& problems, double usual_rate);

/// The reference's cleaning, in place, of `samples` `[rows, 6]`: the power line's 50 Hz (where the rate is above 100)
/// and drift below 0.1 Hz leave the PPG channels; the IMU channels keep 0.5 to 15 Hz. Filters run forth and
/// back, as `scipy.signal.filtfilt` does; rows are too few for that below 28, which throws `DataError`.
MMTRAIN_API void clean_sensors(std::span<float> samples, double rate);

}  // namespace mmtrain::datasets
