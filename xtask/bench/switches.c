/* Two threads that hand a byte to and fro on one CPU, so that every read waits, at the bottom of a call chain of 20 frames.
 * They begin when told on the standard input, and say what they have waited by the kernel's own accounts.
 *
 * switches SECONDS RATE PLACES: RATE switches a second, 0 for as many as possible; PLACES different depths to wait at. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))
#define DEPTH 18

static volatile uint64_t sink;
static int pipes[2][2];
static uint64_t until, period_ns;
static int places;
static volatile int is_over;

struct account { uint64_t switches, waited_ns; };

static uint64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* A switch away from a thread is what makes it wait, wanted or not. */
static struct account account(void) {
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    uint64_t elapsed = clock_ns(CLOCK_MONOTONIC), used = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    return (struct account){(uint64_t)(usage.ru_nvcsw + usage.ru_nivcsw), elapsed - used};
}

NOINLINE void hears(int file) {
    char byte;
    if (read(file, &byte, 1) != 1) abort();
    sink++;
}

NOINLINE void says(int file) {
    char byte = 1;
    if (write(file, &byte, 1) != 1) abort();
    sink++;
}

/* Passes the byte on, and waits for it to come back, this many calls deeper. */
NOINLINE void passes(int self, int calls) {
    if (calls > 0) {
        passes(self, calls - 1);
    } else {
        says(pipes[!self][1]);
        hears(pipes[self][0]);
    }
    sink++;
}

NOINLINE void burns(uint64_t end) {
    while (clock_ns(CLOCK_MONOTONIC) < end) sink++;
}

NOINLINE void plays(int self) {
    uint64_t next = clock_ns(CLOCK_MONOTONIC);
    if (self) hears(pipes[self][0]);
    for (unsigned round = 0; !is_over; round++) {
        if (period_ns) burns(next += 2 * period_ns);
        if (clock_ns(CLOCK_MONOTONIC) >= until) is_over = 1;
        passes(self, places > 1 ? (int)(round * 7 % (unsigned)places) : 0);
    }
    says(pipes[!self][1]); /* the other one may be waiting for its last byte */
}

NOINLINE void descends(int self, int calls) {
    if (calls > 0) descends(self, calls - 1); else plays(self);
    sink++;
}

static void *player(void *result) {
    struct account *sum = result;
    prctl(PR_SET_NAME, "player");
    struct account before = account();
    descends(sum->switches != 0, DEPTH - 3);
    struct account after = account();
    *sum = (struct account){after.switches - before.switches, after.waited_ns - before.waited_ns};
    return NULL;
}

int main(int count, char **arguments) {
    if (count != 4) return 2;
    cpu_set_t first;
    CPU_ZERO(&first);
    CPU_SET(0, &first);
    sched_setaffinity(0, sizeof first, &first);
    long rate = atol(arguments[2]);
    period_ns = rate ? 1000000000u / (uint64_t)rate : 0;
    places = atoi(arguments[3]);
    if (pipe(pipes[0]) || pipe(pipes[1])) return 1;
    puts("ready");
    fflush(stdout);
    if (getchar() == EOF) return 0;
    uint64_t begin = clock_ns(CLOCK_MONOTONIC);
    until = begin + (uint64_t)(atof(arguments[1]) * 1e9);
    pthread_t threads[2];
    struct account sums[2] = {{0, 0}, {1, 0}};
    for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, player, &sums[i]);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    double seconds = (double)(clock_ns(CLOCK_MONOTONIC) - begin) / 1e9;
    printf("%lu %lu %f\n", sums[0].switches + sums[1].switches, sums[0].waited_ns + sums[1].waited_ns, seconds);
    fflush(stdout);
    getchar(); /* its names are looked up after the recording */
    return 0;
}
