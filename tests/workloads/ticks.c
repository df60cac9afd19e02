/* Threads that work at exact multiples of a second, each at another phase of it. */
#define _GNU_SOURCE
#include <pthread.h>
#include "common.h"

enum { THREADS = 8, PERIOD_NS = 1000000000, WORK_MS = 15 };

static void *tick(void *phase) {
    struct timespec next;
    char name[16];
    snprintf(name, sizeof name, "phase%ld", (long)phase);
    pthread_setname_np(pthread_self(), name);
    clock_gettime(CLOCK_MONOTONIC, &next);
    next.tv_nsec = (long)phase * (PERIOD_NS / THREADS);
    for (;;) {
        next.tv_sec++;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
        BURN_MS(WORK_MS);
    }
    return NULL;
}

int main(void) {
    pthread_t thread;
    for (long phase = 0; phase < THREADS; phase++) pthread_create(&thread, NULL, tick, (void *)phase);
    say_ready();
    pthread_join(thread, NULL);
}
