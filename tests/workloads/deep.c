/* A recursion exactly 1,000 calls deep, with the work at its bottom: for ever, or for as many milliseconds of processor
 * time as its argument says. */
#include "common.h"

__attribute__((noinline)) void at_the_bottom(uint64_t ms) { BURN_MS(ms); sink++; }

__attribute__((noinline)) void descend(int calls_left, uint64_t ms) {
    if (calls_left == 1) {
        do at_the_bottom(ms ? ms : 50);
        while (!ms);
        return;
    }
    descend(calls_left - 1, ms);
    sink++; /* Keeps the call from becoming a jump. */
}

int main(int count, char **arguments) {
    say_ready();
    descend(1000, count > 1 ? strtoull(arguments[1], NULL, 10) : 0);
}
