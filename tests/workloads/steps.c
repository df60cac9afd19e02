/* Thirty functions, which are called one after the other fifty times a second. */
#include <unistd.h>
#include "common.h"

#define STEP(tens, ones) __attribute__((noinline)) void step_##tens##ones(void) { sink += 1##tens##ones; }
#define CALL(tens, ones) step_##tens##ones();
#define TEN(what, tens) what(tens, 0) what(tens, 1) what(tens, 2) what(tens, 3) what(tens, 4) what(tens, 5) what(tens, 6) \
    what(tens, 7) what(tens, 8) what(tens, 9)
#define THIRTY(what) TEN(what, 0) TEN(what, 1) TEN(what, 2)

THIRTY(STEP)

int main(void) {
    say_ready();
    for (;;) {
        THIRTY(CALL)
        usleep(20000);
    }
}
