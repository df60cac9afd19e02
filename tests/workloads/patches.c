/* A program that puts a jump over the first bytes of a function in its own memory, as hooks, agents and live patches do:
 * `patches own` over one of its own, `patches malloc` over the C library's malloc, of which it keeps some; with `later` when it
 * is told to by SIGUSR1. It ends with an error as soon as what was replaced runs. */
#define _GNU_SOURCE
#include "common.h"
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile int which;
static volatile sig_atomic_t is_told;

__attribute__((noinline)) int replaced(int x) {
    char bytes[64];
    memset(bytes, x, sizeof bytes);
    for (int i = 0; i < 1000; i++) sink += bytes[i & 63];
    which = 1;
    return x;
}

__attribute__((noinline)) int replacement(int x) {
    for (int i = 0; i < 1000; i++) sink += i;
    which = 2;
    return x;
}

/* The C library's calloc does not call malloc. */
static void *counted(size_t size) {
    which = 2;
    return calloc(1, size);
}

static void patch(void *function, void *by) {
    void *page = (void *)((uintptr_t)function & ~4095ul);
    uint8_t jump[12] = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0}; /* mov rax, by; jmp rax */
    memcpy(jump + 2, &by, sizeof by);
    mprotect(page, 8192, PROT_READ | PROT_WRITE | PROT_EXEC);
    memcpy(function, jump, sizeof jump);
    mprotect(page, 8192, PROT_READ | PROT_EXEC);
}

static void told(int signal) { (void)signal, is_told = 1; }

int main(int argc, char **argv) {
    int is_malloc = !strcmp(argv[1], "malloc"), is_patched = 0;
    int (*volatile call)(int) = replaced;
    void *(*volatile allocate)(size_t) = malloc;
    is_told = argc < 3;
    signal(SIGUSR1, told);
    for (unsigned n = 0;; n++) {
        if (is_told && !is_patched) {
            is_malloc ? patch((void *)malloc, (void *)counted) : patch((void *)replaced, (void *)replacement);
            is_patched = 1;
        }
        which = 0;
        if (is_malloc) {
            char *bytes = allocate(5000);
            memset(bytes, 1, 5000);
            if (n % 4) free(bytes);
        } else {
            call(1);
        }
        if (is_patched && which != 2) return 3;
        if (n == 10) say_ready();
        usleep(500);
    }
}
