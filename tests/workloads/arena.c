/* A library with an allocator linked in: what it gives is never given back. */
#include <stddef.h>
#include <sys/mman.h>

#define NOINLINE __attribute__((noinline))

NOINLINE void *mi_malloc(size_t size) {
    static char *next;
    static size_t left;
    if (left < size) {
        left = 64 << 20;
        next = mmap(NULL, left, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (next == MAP_FAILED) return NULL;
    }
    left -= size;
    return next += size;
}

void *volatile given;

NOINLINE void in_arena(void) { given = mi_malloc(2000); }
