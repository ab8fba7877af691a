#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace mmtrain::datasets::detail {

// A file of sensor data as it is: not cleaned, at its own rate.
struct RawRecording {
  // Rows whose numbers belong to one person.
  struct Person {
    std::string name;
    std::int64_t first_row = 0;
  };

  std::vector<std::string> channels;
  std::vector<float> samples;  // [rows, channels], finite
  std::int64_t rows = 0;
  double share = 1;                     // of the file that was read
  double rate = 0;                      // by a column of times; 0: not known
  std::vector<std::string> labels;      // that a column of labels holds; empty without one
  std::vector<std::int64_t> row_label;  // index into labels
  std::vector<Person> people;           // by a column of people, in their order; empty without one
  std::int64_t malformed_lines = 0;     // those with missing values included
  std::vector<std::string> remarks;     // what looks wrong

  // Rows of the whole file, as far as the part that was read tells.
  double rows_of_file() const { return static_cast<double>(rows) / share; }
};

// A text recording of six channels. Of a file longer than `max_bytes` the beginning alone is read, so that no file
// takes more memory than that. Throws `DataError` with the reason if there is no row of six numbers.
RawRecording read_sensor_text(const std::filesystem::path& file, std::uintmax_t max_bytes);

// A CSV file whose first line names the columns, of a long one the beginning. Throws `DataError` with the reason.
RawRecording read_sensor_csv(const std::filesystem::path& file, std::uintmax_t max_bytes);

// Brings `samples` `[rows, channels]` from one rate to another, by straight lines between them, and cleans them as
// `clean_sensors` does if `clean`, at the higher of the two rates. In double precision: light sensors count to hundreds
// of thousands and move by tens. For float and double.
template <class T>
std::vector<T> prepare_rows(std::span<const float> samples, std::int64_t channels, double from_rate, double to_rate,
                            bool clean);

// Whether so many samples a second hold the power line's 50 Hz, so that a notch can take it out.
bool holds_power_line(double rate);

// The UTF-8 form of a file's name, which may be GBK.
std::string utf8_name(const std::filesystem::path& file);

}  // namespace mmtrain::datasets::detail
