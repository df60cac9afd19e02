/* A function of which every tenth call is slow: it computes for ten milliseconds and waits for ten, where the other calls
 * do a millisecond of each in functions of their own. Two callers, one of which has all slow calls. */
#define _GNU_SOURCE
#include <unistd.h>
#include "common.h"

#define NOINLINE __attribute__((noinline))

static void nap_us(long us) {
    struct timespec time = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&time, NULL);
}

NOINLINE void computes_long(void) { BURN_MS(10); sink++; }
NOINLINE void waits_long(void) { nap_us(10000); sink++; }
NOINLINE void computes(void) { BURN_MS(1); sink++; }
NOINLINE void waits(void) { nap_us(1000); sink++; }

NOINLINE int answers(int is_slow) {
    if (is_slow) {
        computes_long();
        TOLD("waits_long", waits_long());
    } else {
        computes();
        waits();
    }
    sink++;
    return is_slow;
}

NOINLINE void asks_for_much(void) { sink += answers(1); sink++; }
NOINLINE void asks(void) { sink += answers(0); sink++; }

int main(void) {
    say_ready();
    for (int number = 0;; number++) {
        if (number % 10 == 9) asks_for_much(); else TOLD("asks", asks());
    }
}
