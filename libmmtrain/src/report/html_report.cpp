#include "mmtrain/report/html_report.h"

#include <fmt/format.h>

#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include "mmtrain/io/atomic_file.h"

namespace mmtrain {
namespace {

// Empty if there is no such file.
std::string contents_of(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::string_view three = bytes.substr(i, 3);
    std::uint32_t bits = 0;
    for (std::size_t k = 0; k < 3; ++k)
      bits = bits << 8 | (k < three.size() ? static_cast<unsigned char>(three[k]) : 0u);
    for (std::size_t k = 0; k < 4; ++k) text += k <= three.size() ? kDigits[bits >> (18 - 6 * k) & 63] : '=';
  }
  return text;
}

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

std::string picture(const std::filesystem::path& path, std::string_view title) {
  const std::string bytes = contents_of(path);
  if (bytes.empty()) return {};
  return fmt::format("<h2>{}</h2>\n<img alt=\"{}\" src=\"data:image/png;base64,{}\">\n", title, title, base64(bytes));
}

std::string text_of(const std::filesystem::path& path, std::string_view title) {
  const std::string text = contents_of(path);
  return text.empty() ? std::string() : fmt::format("<h2>{}</h2>\n<pre>{}</pre>\n", title, escaped(text));
}

std::string table_of(const std::vector<EpochRecord>& history) {
  if (history.empty()) return {};
  std::string rows =
      "<h2>Epochs</h2>\n<table>\n<tr><th>epoch<th>train loss<th>train acc<th>val loss<th>val acc<th>val macro "
      "F1<th>val weighted F1<th>lr<th>seconds<th>samples/s<th>data wait\n";
  for (const EpochRecord& record : history) {
    rows += fmt::format(
        "<tr{}><td>{}<td>{:.4f}<td>{:.2f} %<td>{:.4f}<td>{:.2f} %<td>{:.4f}<td>{:.4f}<td>{:.3g}<td>{:.2f}<td>{:.0f}"
        "<td>{:.1f} %\n",
        record.best ? " class=\"best\"" : "", record.epoch, record.train_loss, 100 * record.train_acc, record.val_loss,
        100 * record.val_acc, record.val_f1_macro, record.val_f1_weighted, record.lr, record.epoch_seconds,
        record.samples_per_second, record.data_wait_pct);
  }
  return rows + "</table>\n";
}

constexpr std::string_view kStyle =
    "body{font:15px sans-serif;margin:2em auto;max-width:70em;padding:0 1em}img{max-width:100%}pre{overflow:auto;"
    "background:#f4f4f4;padding:1em}table{border-collapse:collapse}td,th{padding:.2em .7em;text-align:right}"
    "tr.best{font-weight:bold}";

}  // namespace

void write_html_report(const std::filesystem::path& run_dir, const std::vector<EpochRecord>& history) {
  const std::string name = escaped(std::filesystem::absolute(run_dir).filename().string());
  write_file_atomic(
      run_dir / "report.html",
      fmt::format("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{}</title>\n"
                  "<style>{}</style>\n</head>\n<body>\n<h1>{}</h1>\n{}{}{}{}{}{}</body>\n</html>\n",
                  name, kStyle, name, picture(run_dir / "comprehensive_results.png", "Results"),
                  text_of(run_dir / "classification_report.txt", "Classification report"),
                  picture(run_dir / "plots" / "confusion_matrix.png", "Confusion matrix"),
                  picture(run_dir / "plots" / "curves.png", "Curves"), table_of(history),
                  text_of(run_dir / "config.json", "Configuration")));
}

}  // namespace mmtrain
