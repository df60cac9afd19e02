/* A recursion exactly 1,000 calls deep, with the work at its bottom. */
#include "common.h"

__attribute__((noinline)) void at_the_bottom(void) { BURN_MS(50); sink++; }

__attribute__((noinline)) void descend(int calls_left) {
    if (calls_left == 1) {
        for (;;) at_the_bottom();
    }
    descend(calls_left - 1);
    sink++; /* Keeps the call from becoming a jump. */
}

int main(void) {
    say_ready();
    descend(1000);
}
