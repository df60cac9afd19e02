/* Waits in many places: functions whose frames are of one size, so that their callers' stack pointers are the same, called in
 * turn and from different depths. Another thread answers, on the same CPU, so that each round waits at least once. */
#define _GNU_SOURCE
#include <pthread.h>
#include <unistd.h>
#include "common.h"

#define PLACE(n) \
    __attribute__((noinline)) void place_##n##_(void) { \
        exchange(); \
        sink++; \
    }

static int there[2], back[2];

static void hears(int file) {
    char byte;
    if (read(file, &byte, 1) != 1) exit(0);
}

static void says(int file) {
    char byte = 1;
    if (write(file, &byte, 1) != 1) exit(0);
}

__attribute__((noinline)) void exchange(void) {
    says(there[1]);
    hears(back[0]);
    sink++;
}

PLACE(0) PLACE(1) PLACE(2) PLACE(3) PLACE(4) PLACE(5) PLACE(6) PLACE(7)
PLACE(8) PLACE(9) PLACE(10) PLACE(11) PLACE(12) PLACE(13) PLACE(14) PLACE(15)

static void (*const places[16])(void) = {
    place_0_, place_1_, place_2_, place_3_, place_4_, place_5_, place_6_, place_7_,
    place_8_, place_9_, place_10_, place_11_, place_12_, place_13_, place_14_, place_15_,
};

__attribute__((noinline)) void deeper(long calls, void (*place)(void)) {
    if (calls > 0) deeper(calls - 1, place); else place();
    sink++;
}

static void *answers(void *unused) {
    for (;;) { hears(there[0]); says(back[1]); }
    return unused;
}

/* places ROUNDS DEPTHS: each place waits this often, as often at each of these depths. */
int main(int argc, char **argv) {
    if (argc != 3) return 2;
    long rounds = atol(argv[1]), depths = atol(argv[2]);
    cpu_set_t first;
    CPU_ZERO(&first);
    CPU_SET(0, &first);
    pthread_setaffinity_np(pthread_self(), sizeof first, &first);
    if (pipe(there) || pipe(back)) return 1;
    pthread_t thread;
    pthread_create(&thread, NULL, answers, NULL);
    sleep(1); /* whoever records begins meanwhile to know the code */
    for (long round = 0; round < rounds; round++)
        for (int at = 0; at < 16; at++) deeper(round % depths, places[at]);
    return 0;
}
