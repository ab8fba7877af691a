#pragma once

#include <cstdint>
#include <filesystem>
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
  double rate = 0;                      // by a column of times; 0: not known
  std::vector<std::string> labels;      // that a column of labels holds; empty without one
  std::vector<std::int64_t> row_label;  // index into labels
  std::vector<Person> people;           // by a column of people, in their order; empty without one
  std::int64_t malformed_lines = 0;     // those with missing values included
  std::vector<std::string> remarks;     // what looks wrong
};

// A text recording of six channels. Throws `DataError` with the reason if there is no row of six numbers.
RawRecording read_sensor_text(const std::filesystem::path& file);

// A CSV file whose first line names the columns. Throws `DataError` with the reason.
RawRecording read_sensor_csv(const std::filesystem::path& file);

// Brings `samples` `[rows, channels]` from one rate to another, by straight lines between them, and cleans them as
// `clean_sensors` does if `clean`. In double precision: light sensors count to hundreds of thousands and move by tens.
std::vector<float> prepare_rows(const std::vector<float>& samples, std::int64_t channels, double from_rate,
                                double to_rate, bool clean);

// The UTF-8 form of a file's name, which may be GBK.
std::string utf8_name(const std::filesystem::path& file);

}  // namespace mmtrain::datasets::detail
