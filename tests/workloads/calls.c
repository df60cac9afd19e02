/* Functions whose calls take times that are known, recur, are jumped out of, are errors, or do not return: `stuck` from
 * SIGUSR1 on. */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>
#include "common.h"

#define NOINLINE __attribute__((noinline))

static void nap_us(long us) {
    struct timespec time = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&time, NULL);
}

/* Two milliseconds, every tenth call twenty; every fifth is an error. */
NOINLINE int sends(int number) {
    nap_us(number % 10 == 9 ? 20000 : 2000);
    return number % 5 == 0 ? -1 : 0;
}

/* What the innermost of these calls slept for. */
static uint64_t slept_ns;

NOINLINE int recurs(int depth) {
    if (depth == 0) {
        uint64_t begin_ns = now_ns();
        nap_us(1000);
        slept_ns = now_ns() - begin_ns;
        return 0;
    }
    int below = recurs(depth - 1);
    sink++;
    return below + 1;
}

static jmp_buf back;

NOINLINE void jumps(int depth) {
    if (depth == 0) longjmp(back, 1);
    jumps(depth - 1);
    sink++;
}

/* Ends in other functions: one that is known, and one behind a pointer. */
NOINLINE int naps(int number) { nap_us(3000); return number; }
static int (*volatile next)(int) = naps;
NOINLINE int jumps_on(int number) { sink++; return naps(number); }
NOINLINE int jumps_anywhere(int number) { sink++; return next(number); }

NOINLINE void tiny(void) { sink++; }

NOINLINE void gets_stuck(void) { sleep(60); sink++; }

static void *stuck(void *signals) {
    int number;
    sigwait(signals, &number);
    for (;;) gets_stuck();
    return NULL;
}

NOINLINE void chore(void) { for (int i = 0; i < 500; i++) sink++; }
NOINLINE void shift(void) { for (int i = 0; i < 20000; i++) chore(); sink++; }

static void *crew(void *unused) {
    for (;;) shift();
    return unused;
}

static void *busy(void *unused) {
    for (;;) tiny();
    return unused;
}

int main(int argc, char **argv) {
    pthread_t thread;
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    say_ready();
    if (argc > 1 && !strcmp(argv[1], "stuck")) pthread_create(&thread, NULL, stuck, &signals);
    if (argc > 1 && !strcmp(argv[1], "busy")) pthread_create(&thread, NULL, busy, NULL);
    if (argc > 1 && !strcmp(argv[1], "crew"))
        for (int i = 0; i < 4; i++) pthread_create(&thread, NULL, crew, NULL);
    for (int number = 0;; number++) {
        TOLD("sends", sends(number));
        if (number % 10) continue;
        TOLD("recurs", recurs(5));
        tell("recurs_sleep", slept_ns);
        TOLD("naps", sink += jumps_on(number));
        TOLD("naps", sink += jumps_anywhere(number));
        if (!setjmp(back)) jumps(3);
    }
}
