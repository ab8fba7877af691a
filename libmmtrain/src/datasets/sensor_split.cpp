#include "mmtrain/datasets/sensor_split.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>
#include <numeric>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "mmtrain/core/error.h"
#include "mmtrain/core/random.h"

namespace mmtrain::datasets {
namespace {

// Windows that stay together, and how many of each class they are.
struct Group {
  std::vector<std::int64_t> windows;
  std::vector<double> counts;
};

const SensorRecording& recording_of(const SensorData& data, std::int64_t window) {
  return data.recordings[static_cast<std::size_t>(data.windows[static_cast<std::size_t>(window)].recording)];
}

const char* plural(SplitBy by) {
  return by == SplitBy::person ? "people" : by == SplitBy::file ? "recordings" : "windows";
}

std::vector<Group> group(const SensorData& data, const std::vector<std::int64_t>& windows, SplitBy by) {
  std::map<std::string, Group> groups;
  for (const std::int64_t index : windows) {
    const SensorRecording& recording = recording_of(data, index);
    const std::string key = by == SplitBy::window   ? fmt::format("{:012}", index)
                            : by == SplitBy::person ? recording.person
                                                    : recording.path + "/" + recording.person;
    Group& group = groups[key];
    if (group.counts.empty()) group.counts.resize(data.class_names.size());
    group.windows.push_back(index);
    group.counts[static_cast<std::size_t>(data.windows[static_cast<std::size_t>(index)].label)] += 1;
  }
  std::vector<Group> result;
  for (auto& [key, group] : groups) result.push_back(std::move(group));
  return result;
}

// Gives each group to one of the parts, the largest first, where it brings the classes nearest to the parts' shares.
std::vector<std::vector<std::int64_t>> part(std::vector<Group> groups, const std::vector<double>& shares,
                                            std::uint64_t seed) {
  RandomStream random(seed, RandomDomain::sampler);
  for (std::size_t left = groups.size(); left > 1; --left) {
    std::swap(groups[left - 1], groups[static_cast<std::size_t>(random.uniform_int(static_cast<std::int64_t>(left)))]);
  }
  std::stable_sort(groups.begin(), groups.end(),
                   [](const Group& a, const Group& b) { return a.windows.size() > b.windows.size(); });
  const std::size_t classes = groups.front().counts.size();
  std::vector<double> totals(classes);
  for (const Group& group : groups) {
    for (std::size_t c = 0; c < classes; ++c) totals[c] += group.counts[c];
  }
  std::vector<std::vector<double>> filled(shares.size(), std::vector<double>(classes));
  std::vector<std::vector<std::int64_t>> parts(shares.size());
  std::vector<std::size_t> members(shares.size());
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const Group& group = groups[g];
    const auto empty = static_cast<std::size_t>(std::count(members.begin(), members.end(), 0U));
    const bool must_fill = groups.size() - g <= empty;  // as many groups are left as parts without any
    std::size_t best = shares.size();
    double least = 0;
    for (std::size_t p = 0; p < shares.size(); ++p) {
      if (must_fill && members[p] > 0) continue;
      double change = 0;  // of the squared distances to the share, relative to it
      for (std::size_t c = 0; c < classes; ++c) {
        if (totals[c] == 0) continue;
        const double before = filled[p][c] / totals[c] - shares[p], after = before + group.counts[c] / totals[c];
        change += (after * after - before * before) / shares[p];
      }
      if (best == shares.size() || change < least) {
        best = p;
        least = change;
      }
    }
    ++members[best];
    for (std::size_t c = 0; c < classes; ++c) filled[best][c] += group.counts[c];
    parts[best].insert(parts[best].end(), group.windows.begin(), group.windows.end());
  }
  for (std::vector<std::int64_t>& windows : parts) std::sort(windows.begin(), windows.end());
  return parts;
}

std::vector<Group> groups_for(const SensorData& data, const std::vector<std::int64_t>& windows, SplitBy by,
                              std::size_t parts) {
  std::vector<Group> groups = group(data, windows, by);
  if (groups.size() < parts) {
    throw DataError(fmt::format("[sensors] {} parts need at least as many {}, there are {}: split by something finer",
                                parts, plural(by), groups.size()));
  }
  return groups;
}

void check_shares(const SensorSplitOptions& options) {
  const bool fine = options.test_size > 0 && options.val_size >= 0 && options.test_size + options.val_size < 1;
  if (fine) return;
  throw ConfigError(
      fmt::format("[sensors] test_size must be positive, val_size not negative and both together below "
                  "1, got {} and {}",
                  options.test_size, options.val_size));
}

// Only a share for validation is left to choose where the layout says what is tested on.
SensorSplit split_as_given(const SensorData& data, const SensorSplitOptions& options) {
  SensorSplit split;
  std::vector<std::int64_t> rest;
  for (std::size_t k = 0; k < data.windows.size(); ++k) {
    const auto index = static_cast<std::int64_t>(k);
    (recording_of(data, index).part == "test" ? split.test : rest).push_back(index);
  }
  std::tie(split.train, split.val) = split_off(data, rest, SplitBy::person, options.val_size, options.seed);
  return split;
}

std::vector<std::int64_t> all_windows(const SensorData& data) {
  std::vector<std::int64_t> windows(data.windows.size());
  std::iota(windows.begin(), windows.end(), 0);
  return windows;
}

}  // namespace

SplitBy parse_split(std::string_view word) {
  if (word == "file") return SplitBy::file;
  if (word == "person") return SplitBy::person;
  if (word == "window") return SplitBy::window;
  throw ConfigError(fmt::format("[sensors] a split is by file, person or window, not by '{}'", word));
}

SensorSplit split_windows(const SensorData& data, const SensorSplitOptions& options) {
  check_shares(options);
  const auto given = [](const char* name) {
    return [name](const SensorRecording& recording) { return recording.part == name; };
  };
  if (options.by == SplitBy::file && std::any_of(data.recordings.begin(), data.recordings.end(), given("test")) &&
      std::any_of(data.recordings.begin(), data.recordings.end(), given("train"))) {
    return split_as_given(data, options);
  }
  std::vector<double> shares{1 - options.test_size - options.val_size, options.test_size};
  if (options.val_size > 0) shares.push_back(options.val_size);
  auto parts = part(groups_for(data, all_windows(data), options.by, shares.size()), shares, options.seed);
  SensorSplit split;
  split.train = std::move(parts[0]);
  split.test = std::move(parts[1]);
  if (parts.size() > 2) split.val = std::move(parts[2]);
  return split;
}

std::pair<std::vector<std::int64_t>, std::vector<std::int64_t>> split_off(const SensorData& data,
                                                                          const std::vector<std::int64_t>& windows,
                                                                          SplitBy by, double share,
                                                                          std::uint64_t seed) {
  if (!(share >= 0 && share < 1)) {
    throw ConfigError(fmt::format("[sensors] the share to split off must be at least 0 and below 1, got {}", share));
  }
  if (share == 0) return {windows, {}};
  auto parts = part(groups_for(data, windows, by, 2), {1 - share, share}, seed);
  return {std::move(parts[0]), std::move(parts[1])};
}

std::vector<std::vector<std::int64_t>> sensor_folds(const SensorData& data, SplitBy by, std::int64_t folds,
                                                    std::uint64_t seed) {
  if (folds < 2) throw ConfigError(fmt::format("[sensors] cross-validation needs at least 2 folds, got {}", folds));
  const auto count = static_cast<std::size_t>(folds);
  return part(groups_for(data, all_windows(data), by, count),
              std::vector<double>(count, 1.0 / static_cast<double>(folds)), seed);
}

}  // namespace mmtrain::datasets
