#pragma once

#include "report/canvas.h"

namespace mmtrain {

// What all charts share, so that they look like one report.
inline constexpr Color kWhite{255, 255, 255}, kGrid{228, 228, 228}, kEdge{90, 90, 90}, kText{40, 40, 40};
inline constexpr double kTickSize = 13, kLabelSize = 14.5, kTitleSize = 17;  // of text

}  // namespace mmtrain
