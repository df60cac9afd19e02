/* Asks for the time over and over, which the vDSO answers. */
#include <time.h>
#include "common.h"

int main(void) {
    struct timespec now;
    say_ready();
    for (;;) {
        for (int i = 0; i < 1000; i++) clock_gettime(CLOCK_MONOTONIC, &now);
        sink += (uint64_t)now.tv_nsec;
    }
}
