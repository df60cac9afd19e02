/* Threads that share two functions, and the allocator, on one CPU: some call them all the time, others wake up every few hundred
 * microseconds and have a priority by which they run at once, whatever the first were doing. They begin when a probe changes the
 * first byte of `step`, or of `malloc` with the word `malloc`, and go on for as many seconds as the second word says. What they
 * did is said then: calls of `step`, and the bytes that `keeps` has not given back. A wrong value ends the program. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>
#include "common.h"

#define NOINLINE __attribute__((noinline))
#define EAGER 4
#define THREADS 16
#define KEPT 8192

static struct { _Alignas(64) uint64_t calls, kept; } counts[THREADS];
static int is_malloc;
static volatile int has_begun, has_ended;

NOINLINE uint64_t step(uint64_t number) {
    for (volatile int i = 0; i < 20; i++) {}
    return number * 2862933555777941757u + 3037000493u;
}

NOINLINE void *keeps(void) {
    void *volatile memory = malloc(KEPT);
    return memory;
}

NOINLINE void churns(uint64_t number) {
    uint64_t *volatile memory = malloc(512 + number % 512);
    memory[7] = number;
    if (memory[7] != number) abort();
    free(memory);
}

static void works(int own) {
    uint64_t number = counts[own].calls++;
    if (!is_malloc) {
        if (step(number) != number * 2862933555777941757u + 3037000493u) abort();
        return;
    }
    /* Probes of an allocator cost more: not all of the CPU, as they would be set for a part of the time then. */
    for (volatile int i = 0; i < 5000; i++) {}
    if (number % 64 == 0) {
        if (!keeps()) abort();
        counts[own].kept += KEPT;
    } else {
        churns(number);
    }
}

static void *thread(void *word) {
    int own = (int)(intptr_t)word;
    while (!has_begun) usleep(10000);
    struct sched_param priority = {.sched_priority = own + 1};
    if (own < EAGER && sched_setscheduler(0, SCHED_FIFO, &priority)) exit(3);
    while (!has_ended) {
        works(own);
        if (own < EAGER) usleep(200 + 100 * (unsigned)own);
    }
    return NULL;
}

int main(int count, char **words) {
    if (count < 3) return 2;
    is_malloc = !strcmp(words[1], "malloc");
    cpu_set_t first;
    CPU_ZERO(&first);
    CPU_SET(0, &first);
    if (sched_setaffinity(0, sizeof first, &first)) return 3;
    const volatile unsigned char *code = (unsigned char *)(is_malloc ? (uintptr_t)malloc : (uintptr_t)step);
    unsigned char untouched = *code;
    pthread_t threads[THREADS];
    for (intptr_t own = 0; own < THREADS; own++)
        if (pthread_create(&threads[own], NULL, thread, (void *)own)) return 3;
    say_ready();
    while (*code == untouched) usleep(10000);
    /* All other places have their probes then. */
    sleep(1);
    has_begun = 1;
    sleep((unsigned)atoi(words[2]));
    has_ended = 1;
    uint64_t calls = 0, kept = 0;
    for (int own = 0; own < THREADS; own++) {
        pthread_join(threads[own], NULL);
        calls += counts[own].calls;
        kept += counts[own].kept;
    }
    printf("called %llu\nkept %llu\n", (unsigned long long)calls, (unsigned long long)kept);
    fflush(stdout);
    for (;;) pause();
}
