/* What the workloads share: telling the test that they are ready, and what calls took; and burning processor time by the
 * thread's own clock, so that a busy machine changes how long it takes but not how it is divided. */
#pragma once
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static volatile uint64_t sink;

/* One line tells the test that what it waits for has begun. */
static inline void say_ready(void) {
    puts("ready");
    fflush(stdout);
}

static inline uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Tells the test what a call took. Where others keep the machine busy, sleeping takes longer than was asked for: by this clock
 * the test knows how long. */
static inline void tell(const char *name, uint64_t nanoseconds) {
    printf("told %s %llu\n", name, (unsigned long long)nanoseconds);
    fflush(stdout);
}

/* The same of a call that began then. */
static inline void tell_call(const char *name, uint64_t begin_ns) { tell(name, now_ns() - begin_ns); }

/* A call that is told. */
#define TOLD(name, call)               \
    do {                               \
        uint64_t told_from = now_ns(); \
        call;                          \
        tell_call(name, told_from);    \
    } while (0)

static inline uint64_t thread_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Rounds of work between two looks at the clock. */
#ifndef BURN_ROUNDS
#define BURN_ROUNDS 100000
#endif

/* Burns `ms` milliseconds of processor time in the function where it stands: a macro, so that no other function, inlined
 * or not, can be said to be hot. The clock is a system call, so it is read rarely. */
#define BURN_MS(ms)                                                                                       \
    do {                                                                                                  \
        uint64_t burn_end = thread_ns() + (uint64_t)(ms) * 1000000u;                                      \
        do {                                                                                              \
            for (int i = 0; i < BURN_ROUNDS; i++) sink = sink * 2862933555777941757u + 3037000493u;            \
        } while (thread_ns() < burn_end);                                                                 \
    } while (0)
