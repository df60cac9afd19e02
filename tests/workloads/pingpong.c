/* Two threads that hand a byte to and fro as often as they are told, on one CPU, so that every read waits. */
#define _GNU_SOURCE
#include <pthread.h>
#include <unistd.h>
#include "common.h"

static int there[2], back[2];
static long rounds;

__attribute__((noinline)) void hears(int file) {
    char byte;
    if (read(file, &byte, 1) != 1) abort();
    sink++;
}

static void says(int file) {
    char byte = 1;
    if (write(file, &byte, 1) != 1) abort();
}

static void *pong(void *unused) {
    for (long i = 0; i < rounds; i++) { hears(there[0]); says(back[1]); }
    return unused;
}

int main(int argc, char **argv) {
    rounds = argc > 1 ? atol(argv[1]) : 100000;
    cpu_set_t first;
    CPU_ZERO(&first);
    CPU_SET(0, &first);
    pthread_setaffinity_np(pthread_self(), sizeof first, &first);
    if (pipe(there) || pipe(back)) return 1;
    pthread_t thread;
    pthread_create(&thread, NULL, pong, NULL);
    for (long i = 0; i < rounds; i++) { says(there[1]); hears(back[0]); }
    pthread_join(thread, NULL);
    return 0;
}
