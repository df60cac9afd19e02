// Allocates at known rates. What it does is chosen by its first argument.
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

#define NOINLINE __attribute__((noinline))

// Keeps compilers from leaving allocations out.
void *volatile seen;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

// 2 MB a second that nobody frees, in blocks of 1 kB.
NOINLINE void leaks(void)
{
    memset(seen = malloc(1000), 1, 1000);
}

// 20 MB a second that are freed after a while.
enum { RING = 256 };
static void *ring[RING];

NOINLINE void churns(unsigned round)
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

// The same leak among 22 MB a second in blocks of 64 bytes to 16 kB, in use for two thirds of a second: what is leaked takes
// the place of what was freed, so that fresh pages are first touched by those that free theirs.
enum { BUSY = 4096 };
static void *busy_blocks[BUSY];

NOINLINE void recycles(unsigned round)
{
    void **slot = &busy_blocks[round % BUSY];
    size_t size = 64u << (round * 2654435761u >> 9) % 9;
    free(*slot);
    *slot = seen = malloc(size);
    memset(*slot, 1, size);
}

static void hidden(void)
{
    double begin = seconds();
    for (unsigned rounds = 0;; usleep(1000))
        for (; rounds < 2000 * (seconds() - begin); rounds++) {
            leaks();
            for (unsigned i = 0; i < 3; i++)
                recycles(3 * rounds + i);
        }
}

// Every function of the C library that allocates, each 1 MB a second in blocks of 2000 bytes; nobody frees them.
NOINLINE void by_malloc(void) { seen = malloc(2000); }
NOINLINE void by_calloc(void) { seen = calloc(20, 100); }
NOINLINE void by_realloc(void) { seen = realloc(NULL, 2000); }
NOINLINE void by_growing(void) { seen = realloc(malloc(1000), 2000); }
NOINLINE void by_reallocarray(void) { seen = reallocarray(NULL, 20, 100); }
NOINLINE void by_aligned_alloc(void) { seen = aligned_alloc(16, 2000); }
NOINLINE void by_memalign(void) { seen = memalign(64, 2000); }
NOINLINE void by_posix_memalign(void)
{
    void *result = NULL;
    if (posix_memalign(&result, 64, 2000) == 0)
        seen = result;
}

static void kinds(void)
{
    double begin = seconds();
    for (unsigned rounds = 0;; usleep(1000))
        for (; rounds < 500 * (seconds() - begin); rounds++) {
            by_malloc(), by_calloc(), by_realloc(), by_growing();
            by_reallocarray(), by_aligned_alloc(), by_memalign(), by_posix_memalign();
        }
}

// One thread allocates, another one frees.
static int pipes[2];

static void *takes(void *unused)
{
    (void)unused;
    void *block;
    while (read(pipes[0], &block, sizeof block) == sizeof block)
        free(block);
    return NULL;
}

NOINLINE void hands_over(void)
{
    void *block = malloc(10000);
    if (write(pipes[1], &block, sizeof block) != sizeof block)
        exit(1);
}

// One block of 16 MB that grows there, again and again, and moves on its way.
NOINLINE void grows(void)
{
    static char *block;
    static size_t size = 1 << 20;
    size = size >= 16 << 20 ? 1 << 20 : size + (1 << 20);
    seen = block = realloc(block, size);
}

static void moves(void)
{
    pthread_t thread;
    if (pipe(pipes) != 0 || pthread_create(&thread, NULL, takes, NULL) != 0)
        exit(1);
    for (;; usleep(1000)) {
        hands_over();
        grows();
    }
}

// As often as it can; tells every second how often that was.
NOINLINE void spins(void)
{
    free(seen = malloc(64));
}

static void busy(void)
{
    for (;;) {
        double begin = seconds();
        unsigned long calls = 0;
        for (; seconds() - begin < 1; calls += 1000)
            for (int i = 0; i < 1000; i++)
                spins();
        printf("%.0f\n", calls / (seconds() - begin));
        fflush(stdout);
    }
}

// Allocates 100 MB, then becomes another program, which frees what it allocates.
NOINLINE void forgets(void) { seen = malloc(1 << 20); }

static void becomes(const char *program)
{
    sleep(2);
    for (int i = 0; i < 100; i++)
        forgets();
    sleep(1);
    execl(program, program, "moves", (char *)NULL);
}

// 100 MB at once, before anything else, then a leak.
NOINLINE void begins(void)
{
    for (int i = 0; i < 100; i++)
        seen = malloc(1000000);
}

// After two seconds two children leak: one that was forked, and one that becomes this program again, with another allocator
// if one is named.
NOINLINE void as_forked(void) { leak(); }

static void has_children(const char *program, const char *library)
{
    sleep(2);
    if (fork() == 0)
        as_forked();
    if (fork() == 0) {
        if (library != NULL)
            setenv("LD_PRELOAD", library, 1);
        execl(program, program, "begins", (char *)NULL);
        exit(1);
    }
    pause();
}

// After two seconds a library is loaded that has an allocator of its own: 2 MB a second.
static void loads(const char *library)
{
    sleep(2);
    void *handle = dlopen(library, RTLD_NOW);
    void (*in_arena)(void) = handle ? (void (*)(void))dlsym(handle, "in_arena") : NULL;
    if (in_arena == NULL)
        exit(1);
    usleep(300000);
    double begin = seconds();
    for (unsigned rounds = 0;; usleep(1000))
        for (; rounds < 1000 * (seconds() - begin); rounds++)
            in_arena();
}

// 1 MB a second in each of three ways. A call that gives no new memory leaves the old as it was.
static void fails(void *kept, void *failed)
{
    if (failed != NULL || kept == NULL)
        exit(1);
}

NOINLINE void fails_to_grow(void)
{
    volatile size_t much = SIZE_MAX / 2;
    void *kept = seen = malloc(1000);
    fails(kept, realloc(kept, much));
}

NOINLINE void fails_to_grow_an_array(void)
{
    volatile size_t much = SIZE_MAX / 2;
    void *kept = seen = malloc(1000);
    fails(kept, reallocarray(kept, much, 9));
}

// Nothing is left of this one.
NOINLINE void shrinks_to_nothing(void)
{
    void *kept = seen = malloc(1000);
    seen = realloc(kept, 0);
}

static void refused(void)
{
    double begin = seconds();
    for (unsigned rounds = 0;; usleep(1000))
        for (; rounds < 1000 * (seconds() - begin); rounds++) {
            fails_to_grow();
            fails_to_grow_an_array();
            shrinks_to_nothing();
        }
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "begins") == 0) {
        begins();
        leak();
    }
    const char *what = argc > 1 ? argv[1] : "leak";
    say_ready();
    if (strcmp(what, "leak") == 0)
        leak();
    if (strcmp(what, "hidden") == 0)
        hidden();
    if (strcmp(what, "kinds") == 0)
        kinds();
    if (strcmp(what, "refused") == 0)
        refused();
    if (strcmp(what, "moves") == 0)
        moves();
    if (strcmp(what, "busy") == 0)
        busy();
    if (strcmp(what, "becomes") == 0)
        becomes(argv[0]);
    if (strcmp(what, "has_children") == 0)
        has_children(argv[0], argc > 2 ? argv[2] : NULL);
    if (strcmp(what, "loads") == 0)
        loads(argv[2]);
    return 2;
}
