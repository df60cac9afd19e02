/* An allocator that publishes samples of its own: every tenth allocation, by static tracepoints. With SEMAPHORES it does so
 * only while somebody listens. */
#ifdef SEMAPHORES
#define _SDT_HAS_SEMAPHORES 1
#endif
#include <stdlib.h>
#include <string.h>
#include <sys/sdt.h>
#include <time.h>
#include <unistd.h>
#include "common.h"

#define NOINLINE __attribute__((noinline))
#define EVERY 10

#ifdef SEMAPHORES
unsigned short otel_memory_alloc_semaphore __attribute__((section(".probes")));
unsigned short otel_memory_free_semaphore __attribute__((section(".probes")));
#define IS_HEARD(name) __builtin_expect(name##_semaphore, 0)
#else
#define IS_HEARD(name) 1
#endif

struct header {
    long is_sampled;
    long padding;
};

NOINLINE void *gets(size_t size) {
    static unsigned count;
    struct header *header = malloc(sizeof *header + size);
    header->is_sampled = ++count % EVERY == 0;
    if (header->is_sampled && IS_HEARD(otel_memory_alloc))
        DTRACE_PROBE3(otel_memory, alloc, header + 1, size, EVERY * size);
    return header + 1;
}

NOINLINE void gives_back(void *block) {
    if (block == NULL) return;
    struct header *header = (struct header *)block - 1;
    if (header->is_sampled && IS_HEARD(otel_memory_free)) DTRACE_PROBE1(otel_memory, free, block);
    free(header);
}

/* The same elsewhere: of a size that is an int in memory, for a weight that the compiler knows. */
NOINLINE void *gets_kilobyte(void) {
    static unsigned count;
    struct header *header = malloc(sizeof *header + 1000);
    volatile int size = 1000;
    header->is_sampled = ++count % EVERY == 0;
    if (header->is_sampled && IS_HEARD(otel_memory_alloc))
        DTRACE_PROBE3(otel_memory, alloc, header + 1, size, 10000);
    return header + 1;
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

void *volatile seen;

/* 2 MB a second that nobody frees, in blocks of 1 kB. */
NOINLINE void leaks(void) { memset(seen = gets_kilobyte(), 1, 1000); }

/* 20 MB a second that are freed after a while. */
enum { RING = 250 };
static void *ring[RING];

NOINLINE void churns(unsigned round) {
    void **slot = &ring[round % RING];
    gives_back(*slot);
    *slot = seen = gets(5000);
}

int main(void) {
    say_ready();
    double begin = seconds();
    for (unsigned rounds = 0;; usleep(1000))
        for (; rounds < 2000 * (seconds() - begin); rounds++) {
            leaks();
            churns(2 * rounds);
            churns(2 * rounds + 1);
        }
}
