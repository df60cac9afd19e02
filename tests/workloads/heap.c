// Allocates at known rates. What it does is chosen by its first argument.
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

// Keeps compilers from leaving allocations out.
void *volatile seen;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

// 2 MB a second that nobody frees, in blocks of 1 kB.
__attribute__((noinline)) void leaks(void)
{
    memset(seen = malloc(1000), 1, 1000);
}

// 20 MB a second that are freed after a while.
enum { RING = 256 };
static void *ring[RING];

__attribute__((noinline)) void churns(unsigned round)
{
    void **slot = &ring[round % RING];
    free(*slot);
    *slot = seen = malloc(5000);
}

static void leak(void)
{
    double begin = seconds();
    for (unsigned rounds = 0;; usleep(1000))
        for (; rounds < 2000 * (seconds() - begin); rounds++) {
            leaks();
            churns(2 * rounds);
            churns(2 * rounds + 1);
        }
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "leak";
    say_ready();
    if (strcmp(what, "leak") == 0)
        leak();
    return 2;
}
