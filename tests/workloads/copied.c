/* Copies a part of its code to other memory at its own address, as remappers to huge pages do: at first by moving the copy
 * there, and with an argument again and again by writing it there. */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
#include "common.h"

/* The functions have pages of their own. */
#define COPIED __attribute__((noinline, section("copied")))

COPIED __attribute__((aligned(4096))) void inner_hot(void) {
    for (int i = 0; i < 100000; i++) sink = sink * 2862933555777941757u + 3037000493u;
}

COPIED void middle(void) {
    inner_hot();
    sink++;
}

COPIED __attribute__((aligned(4096))) void behind(void) { sink++; }

static char *const start = (char *)inner_hot;
static char copy[4096];

static void move(void) {
    char *moved = mmap(NULL, sizeof copy, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(moved, start, sizeof copy);
    mprotect(moved, sizeof copy, PROT_READ | PROT_EXEC);
    mremap(moved, sizeof copy, sizeof copy, MREMAP_MAYMOVE | MREMAP_FIXED, start);
}

static void write_again(void) {
    mmap(start, sizeof copy, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0);
    memcpy(start, copy, sizeof copy);
    mprotect(start, sizeof copy, PROT_READ | PROT_EXEC);
}

int main(int count, char **arguments) {
    (void)arguments;
    memcpy(copy, start, sizeof copy);
    move();
    say_ready();
    for (uint64_t round = 1;; round++) {
        middle();
        if (count > 1 && round % 2000 == 0) write_again();
    }
}
