/* Many threads asleep at the bottom of a call chain, and one, between two lines of the standard input, that does nothing but
 * read the clock: the gaps between two readings are the time that it could not run.
 *
 * sleepers THREADS CPU NICE: the reader is bound to this CPU, or to none if it is negative, and as nice as that. It says, in microseconds, the longest
 * gap, the longest in 999 of 1,000 milliseconds, and the sum of those above 10 us in a second. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))
#define DEPTH 20
#define SLICES 600000 /* milliseconds: ten minutes */
#define NOTABLE_NS 10000

static volatile uint64_t sink;
static volatile int is_measuring;
static uint32_t longest[SLICES];
static uint64_t slices, maximum, sum;
static int cpu, niceness;

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

NOINLINE void descends(int calls) {
    if (calls > 1) descends(calls - 1); else for (;;) pause();
    sink++;
}

static void *sleeper(void *unused) {
    descends(DEPTH);
    return unused;
}

/* A gap of many milliseconds is the longest one in each of them. */
static void note(uint64_t begin, uint64_t from, uint64_t to) {
    uint64_t gap = to - from, last = (to - begin) / 1000000;
    for (uint64_t slice = (from - begin) / 1000000; slice <= last && slice < SLICES; slice++) {
        if (gap > longest[slice]) longest[slice] = gap > UINT32_MAX ? UINT32_MAX : (uint32_t)gap;
    }
    if (gap > maximum) maximum = gap;
    if (gap > NOTABLE_NS) sum += gap;
}

static void *reader(void *unused) {
    if (cpu >= 0) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET((unsigned)cpu, &one);
        pthread_setaffinity_np(pthread_self(), sizeof one, &one);
    }
    if (niceness && setpriority(PRIO_PROCESS, 0, niceness)) abort(); /* 0 is the calling thread */
    uint64_t begin = now_ns(), last = begin;
    while (is_measuring) {
        uint64_t now = now_ns();
        note(begin, last, now);
        last = now;
    }
    slices = (last - begin) / 1000000;
    return unused;
}

static int by_size(const void *a, const void *b) {
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

int main(int count, char **arguments) {
    if (count != 4) return 2;
    int threads = atoi(arguments[1]);
    cpu = atoi(arguments[2]);
    niceness = atoi(arguments[3]);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 * 1024);
    pthread_t thread;
    for (int i = 0; i < threads; i++) if (pthread_create(&thread, &small, sleeper, NULL)) return 1;
    memset(longest, 1, sizeof longest); /* so that the first use of a page is no gap */
    sleep(1);
    puts("ready");
    fflush(stdout);
    while (getchar() != EOF) {
        memset(longest, 0, sizeof longest);
        maximum = sum = 0;
        is_measuring = 1;
        pthread_create(&thread, NULL, reader, NULL);
        if (getchar() == EOF) return 0;
        is_measuring = 0;
        pthread_join(thread, NULL);
        if (slices > SLICES) slices = SLICES;
        if (slices == 0) return 1;
        qsort(longest, slices, sizeof *longest, by_size);
        printf("%f %f %f\n", maximum / 1e3, longest[slices * 999 / 1000] / 1e3, sum / 1e3 / (slices / 1e3));
        fflush(stdout);
    }
    return 0;
}
