/* A function that is inlined into another one. */
#include "common.h"

static inline __attribute__((always_inline)) void inlined_step(void) {
    for (int i = 0; i < 20000; i++) sink += (uint64_t)i;
}

__attribute__((noinline)) void outer(void) {
    inlined_step();
    __asm__ volatile("" ::: "memory");
}

int main(void) {
    say_ready();
    for (;;) outer();
}
