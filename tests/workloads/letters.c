/* Functions that are called as C++ writes types and std. */
#include "common.h"

#define FUNCTION(name) __attribute__((noinline)) void name(void) { BURN_MS(5); sink++; }
FUNCTION(f) FUNCTION(d) FUNCTION(w) FUNCTION(St) FUNCTION(PKc) FUNCTION(FvvE)

int main(void) {
    say_ready();
    for (;;) { f(); d(); w(); St(); PKc(); FvvE(); }
}
