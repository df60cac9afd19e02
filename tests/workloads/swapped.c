/* A library that `swap.c` loads: the code of each has the same length, only the frame and the time differ. */
#include "common.h"

__attribute__((noinline)) void INNER(void) { BURN_MS(WORK_MS); }

void work(void) {
    char frame[FRAME];
    __asm__ volatile("" ::"r"(frame) : "memory");
    INNER();
    sink++;
}
