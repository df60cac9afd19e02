/* Memory that grows in known ways, each in a function of its own. Arguments: what to do. */
#define _GNU_SOURCE
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "common.h"

#define NOINLINE __attribute__((noinline))
#define MiB (1UL << 20)
#define HUGE (2 * MiB)

static void *map(size_t bytes) {
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) { perror("mmap"); exit(1); }
    return at;
}

NOINLINE void touch(char *at, size_t bytes) { for (size_t i = 0; i < bytes; i += 4096) ((volatile char *)at)[i] = 1; }

static void until(struct timespec begin, double seconds) {
    begin.tv_sec += (time_t)seconds;
    begin.tv_nsec += (long)((seconds - (double)(time_t)seconds) * 1e9);
    if (begin.tv_nsec >= 1000000000L) { begin.tv_sec++; begin.tv_nsec -= 1000000000L; }
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &begin, NULL);
}

static size_t rate; /* bytes a second */

/* Takes fresh memory at the known rate, ten times a second, and never gives it back. */
NOINLINE void leaks(void) {
    struct timespec begin;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (unsigned long n = 1;; n++) {
        size_t bytes = rate / 10 / 4096 * 4096;
        volatile char *at = map(bytes);
        for (size_t i = 0; i < bytes; i += 4096) at[i] = 1;
        until(begin, (double)n / 10);
    }
}

/* Uses the same 4 MiB again and again. */
NOINLINE void uses_again(void) {
    char *at = map(4 * MiB);
    for (;;) { touch(at, 4 * MiB); usleep(20000); }
}

/* Takes 4 MiB and gives them back, fifty times a second. */
NOINLINE void takes_and_gives(void) {
    for (;;) {
        char *at = map(4 * MiB);
        touch(at, 4 * MiB);
        munmap(at, 4 * MiB);
        usleep(20000);
    }
}

/* A gibibyte, as fast as possible, in two functions: sixteen pages here, forty-eight there, over and over. */
NOINLINE void storms_quarter(char *at) { touch(at, 16 * 4096); sink++; }
NOINLINE void storms_rest(char *at) { touch(at, 48 * 4096); sink++; }
NOINLINE void storms(void) {
    char *at = map(1024 * MiB);
    sleep(2); /* until it is watched */
    for (char *p = at; p < at + 1024 * MiB; p += 64 * 4096) { storms_quarter(p); storms_rest(p + 16 * 4096); }
}

/* The kernel writes into memory that the program has not touched. */
NOINLINE void reads_into(void) {
    for (;;) {
        size_t bytes = rate / 10 / 4096 * 4096;
        char *at = map(bytes);
        FILE *zero = fopen("/dev/zero", "r");
        if (read(fileno(zero), at, bytes) != (ssize_t)bytes) exit(1);
        fclose(zero);
        usleep(100000);
    }
}

/* Small pieces from malloc: the heap grows by brk. Only the main thread's does. */
NOINLINE void fills_the_heap(void) {
    for (;;) {
        for (size_t done = 0; done < rate / 10; done += 1024) memset(malloc(1008), 1, 1008);
        usleep(100000);
    }
}

/* Huge pages: one of 2 MiB each time, right after some small ones. */
NOINLINE void takes_small(void) { touch(map(100 * 4096), 100 * 4096); sink++; }
NOINLINE void takes_huge(void) {
    for (;;) {
        takes_small();
        char *at = map(2 * HUGE);
        char *aligned = (char *)(((uintptr_t)at + HUGE - 1) & ~(HUGE - 1));
        madvise(aligned, HUGE, MADV_HUGEPAGE);
        touch(aligned, HUGE);
        usleep((useconds_t)(1e6 * HUGE / rate));
    }
}

/* One mapping that becomes larger. */
NOINLINE void enlarges(void) {
    size_t bytes = 4096;
    char *at = map(bytes);
    for (;;) {
        size_t more = rate / 10 / 4096 * 4096;
        at = mremap(at, bytes, bytes + more, MREMAP_MAYMOVE);
        if (at == MAP_FAILED) exit(1);
        touch(at + bytes, more);
        bytes += more;
        usleep(100000);
    }
}

/* Mappings that are resident when the call returns: no fault is seen. */
NOINLINE void populates(void) {
    for (;;) {
        if (mmap(NULL, rate / 10 / 4096 * 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0) == MAP_FAILED) exit(1);
        usleep(100000);
    }
}

/* The same in two calls: MADV_POPULATE_WRITE, where the kernel knows it. */
NOINLINE void populates_later(void) {
    for (;;) {
        size_t bytes = rate / 10 / 4096 * 4096;
        if (madvise(map(bytes), bytes, 23)) exit(1);
        usleep(100000);
    }
}

/* And by locking it. */
NOINLINE void locks(void) {
    for (;;) {
        size_t bytes = rate / 10 / 4096 * 4096;
        if (mlock(map(bytes), bytes)) exit(1);
        usleep(100000);
    }
}

static void *thread(void *role) {
    ((void (*)(void))role)();
    return NULL;
}

int main(int count, char **roles) {
    static const struct { const char *name; void (*function)(void); } all[] = {
        {"leaks", leaks}, {"uses-again", uses_again}, {"takes-and-gives", takes_and_gives}, {"storms", storms},
        {"reads-into", reads_into}, {"takes-huge", takes_huge}, {"enlarges", enlarges},
        {"populates", populates}, {"populates-later", populates_later}, {"locks", locks},
    };
    const char *text = getenv("RATE_MIB");
    rate = (size_t)((text ? strtod(text, NULL) : 20) * MiB);
    free(malloc(1)); /* the heap is there */
    say_ready();
    for (int i = 1; i < count; i++) {
        for (size_t j = 0; j < sizeof all / sizeof *all; j++) {
            if (strcmp(roles[i], all[j].name)) continue;
            pthread_t id;
            pthread_create(&id, NULL, thread, (void *)all[j].function);
            pthread_setname_np(id, all[j].name);
        }
        if (!strcmp(roles[i], "fills-the-heap")) fills_the_heap();
    }
    for (;;) pause();
}
