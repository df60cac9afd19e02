/* Threads that allocate and count it themselves. Says `ready`, then for each line that it reads how often it
 * has done so, and the processor time in nanoseconds that it took.
 *
 *   mallocs THREADS              as fast as they can, a few hundred nanoseconds of other work between
 *   mallocs THREADS RATE COUNT   so many times a second each, so many times in all, beginning with the first line;
 *                                the answer comes when all are done
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_THREADS 64
#define TURN_NS 2000000 /* Between two bursts of a thread that keeps to a rate. */

static struct { volatile uint64_t count; char apart[56]; } done[MAX_THREADS];
static long rate, count;
static pthread_barrier_t begin;
static volatile uint64_t sink;

__attribute__((noinline)) static void other_work(void) {
    for (int i = 0; i < 60; i++) sink = sink * 31 + i;
}

/* What is timed where every call has to be seen. */
__attribute__((noinline)) void operation(void) { sink++; }

static void *as_fast_as_possible(void *arg) {
    for (long thread = (long)arg;; done[thread].count++) {
        char *volatile memory = malloc(64 + (sink & 63));
        memory[0] = 1;
        other_work();
        free(memory);
    }
    return NULL;
}

static void *at_a_rate(void *arg) {
    long thread = (long)arg, turn = rate * TURN_NS / 1000000000;
    struct timespec next;
    pthread_barrier_wait(&begin);
    clock_gettime(CLOCK_MONOTONIC, &next);
    while (done[thread].count < (uint64_t)count) {
        for (long i = 0; i < turn && done[thread].count < (uint64_t)count; i++) {
            operation();
            done[thread].count++;
        }
        next.tv_nsec += TURN_NS;
        if (next.tv_nsec >= 1000000000) { next.tv_nsec -= 1000000000; next.tv_sec++; }
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
    }
    return NULL;
}

int main(int argc, char **argv) {
    long threads = argc > 1 ? atol(argv[1]) : 1;
    if (threads > MAX_THREADS) return 2;
    if (argc > 3) { rate = atol(argv[2]); count = atol(argv[3]); }
    pthread_t thread[MAX_THREADS];
    pthread_barrier_init(&begin, NULL, threads + 1);
    for (long i = 0; i < threads; i++)
        if (pthread_create(&thread[i], NULL, rate ? at_a_rate : as_fast_as_possible, (void *)i)) return 1;
    puts("ready");
    fflush(stdout);
    for (int c; (c = getchar()) != EOF;) {
        if (c != '\n') continue;
        if (rate) {
            pthread_barrier_wait(&begin);
            for (long i = 0; i < threads; i++) pthread_join(thread[i], NULL);
        }
        uint64_t sum = 0;
        for (long i = 0; i < threads; i++) sum += done[i].count;
        struct timespec used;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
        printf("%lu %lld\n", (unsigned long)sum, used.tv_sec * 1000000000ll + used.tv_nsec);
        fflush(stdout);
    }
    return 0;
}
