// After a crash in malloc, Catch's own signal handler would hang in malloc: let the signal end the test.
#define CATCH_CONFIG_NO_POSIX_SIGNALS
#define CATCH_CONFIG_MAIN
#include "catch.h"
#include "tsan_suppressions.h"
