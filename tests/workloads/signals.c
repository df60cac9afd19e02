/* A function that a signal interrupts again and again; the handler works most of the time. */
#include <signal.h>
#include <sys/time.h>
#include "common.h"

__attribute__((noinline)) void in_the_handler(void) { BURN_MS(8); sink++; }

static void handle(int number) {
    in_the_handler();
    sink += (uint64_t)number;
}

__attribute__((noinline)) void is_interrupted(void) {
    for (;;) sink = sink * 2862933555777941757u + 3037000493u;
}

int main(void) {
    struct sigaction action = {.sa_handler = handle};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval every = {{0, 10000}, {0, 10000}};
    setitimer(ITIMER_REAL, &every, NULL);
    say_ready();
    is_interrupted();
    sink++;
}
