// The C++ side of text_parity.py: a JSON line of a job on stdin, one of its result on stdout. A table's values follow
// as raw numbers in the file `out`.
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "mmtrain/media/csv.h"
#include "mmtrain/media/delimited.h"

namespace {

using namespace mmtrain::media;
using Json = nlohmann::json;

template <class T>
Json write_table(const BasicTable<T>& table, const std::string& out) {
  std::ofstream file(out, std::ios::binary);
  file.write(reinterpret_cast<const char*>(table.values().data()),
             static_cast<std::streamsize>(table.values().size_bytes()));
  Json categories = Json::array(), malformed = Json::array();
  for (std::int64_t c = 0; c < table.columns(); ++c) categories.push_back(table.categories(c));
  for (const MalformedLine& line : table.malformed()) malformed.push_back(line.line);
  return {{"rows", table.rows()},
          {"columns", table.columns()},
          {"names", table.names()},
          {"categories", categories},
          {"malformed", malformed}};
}

Json read_records(const std::string& path) {
  CsvReader reader(path);
  Json records = Json::array();
  while (reader.next()) records.push_back(reader.fields());
  return {{"names", reader.names()}, {"records", records}, {"malformed", reader.malformed_count()}};
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    const Json job = Json::parse(line);
    const std::string kind = job.at("kind"), path = job.at("path");
    if (kind == "records") {
      std::cout << read_records(path).dump() << '\n';
      continue;
    }
    const DelimitedOptions options{.threads = job.value("threads", 2)};
    const std::string out = job.at("out");
    const Json result = kind == "float" ? write_table(read_delimited(path, options), out)
                                        : write_table(read_delimited_double(path, options), out);
    std::cout << result.dump() << '\n';
  }
}
