/* Two functions that take 75 and 25 percent of the processor time. */
#include "common.h"

__attribute__((noinline)) void takes_three_quarters(void) { BURN_MS(30); sink++; }
__attribute__((noinline)) void takes_one_quarter(void) { BURN_MS(10); sink++; }

int main(void) {
    say_ready();
    for (;;) {
        takes_three_quarters();
        takes_one_quarter();
    }
}
