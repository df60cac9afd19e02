/* Thirty functions, which are called one after the other fifty times a second. A wrong value of one of them ends the program. */
#include <unistd.h>
#include "common.h"

#define STEP(tens, ones)                                                        \
    __attribute__((noipa)) uint64_t step_##tens##ones(uint64_t number) {        \
        sink += number;                                                         \
        return number * 1##tens##ones + 7;                                      \
    }
#define CALL(tens, ones) \
    if (step_##tens##ones(number) != number * 1##tens##ones + 7) abort();
#define TEN(what, tens) what(tens, 0) what(tens, 1) what(tens, 2) what(tens, 3) what(tens, 4) what(tens, 5) what(tens, 6) \
    what(tens, 7) what(tens, 8) what(tens, 9)
#define THIRTY(what) TEN(what, 0) TEN(what, 1) TEN(what, 2)

THIRTY(STEP)

int main(void) {
    say_ready();
    for (uint64_t number = 0;; number++) {
        THIRTY(CALL)
        usleep(20000);
    }
}
