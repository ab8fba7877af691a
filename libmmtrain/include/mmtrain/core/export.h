#pragma once

/// Marks a public symbol: everything else in the shared libraries is hidden.
#define MMTRAIN_API __attribute__((visibility("default")))
