#pragma once

#include <cmath>
#include <filesystem>
#include <string>

#include "data_fixtures.h"

// What the tests of sensor recordings share.
namespace fixtures {

// A CSV file of three columns that swing around `offset`, its double and its square.
inline std::string csv(int rows, const std::string& header, double offset = 0) {
  std::string text = header + "\n";
  for (int row = 0; row < rows; ++row) {
    const double value = offset + std::sin(0.1 * row);
    text += std::to_string(value) + "," + std::to_string(2 * value) + "," + std::to_string(value * value) + "\n";
  }
  return text;
}

// People with recordings of two classes that differ in nothing but a channel's mean.
inline void write_people(const std::filesystem::path& root, int people, int recordings = 2) {
  for (int person = 0; person < people; ++person) {
    for (int k = 0; k < recordings; ++k) {
      const std::filesystem::path folder = root / ("s" + std::to_string(person) + "_data");
      write_text(folder / ("UP_" + std::to_string(k) + ".csv"), csv(300, "ax,ay,az", 1));
      write_text(folder / ("DOWN_" + std::to_string(k) + ".csv"), csv(300, "ax,ay,az", -1));
    }
  }
}

}  // namespace fixtures
