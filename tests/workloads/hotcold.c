/* A service that is calm for as many seconds as its first argument says, or until SIGUSR1, and then hot in its thread `matcher`,
 * for as many seconds as its second argument says, or for ever; then it exits. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <unistd.h>
#include "common.h"

static uint64_t calm_seconds, hot_seconds;
static volatile sig_atomic_t is_called;

static void turn_hot(int unused) { (void)unused; is_called = 1; }

__attribute__((noinline)) void calm_work(void) { BURN_MS(2); sink++; }
__attribute__((noinline)) void match_rules(void) { BURN_MS(10); sink++; }

static double now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void *matcher(void *unused) {
    pthread_setname_np(pthread_self(), "matcher");
    double start = now();
    while (!is_called && now() < start + (double)calm_seconds) {
        calm_work();
        usleep(50000);
    }
    start = now();
    while (!hot_seconds || now() < start + (double)hot_seconds) match_rules();
    exit(0);
    return unused;
}

static void *poller(void *unused) {
    pthread_setname_np(pthread_self(), "poller");
    for (;;) {
        calm_work();
        usleep(100000);
    }
    return unused;
}

int main(int count, char **arguments) {
    calm_seconds = count > 1 ? strtoull(arguments[1], NULL, 10) : 5;
    hot_seconds = count > 2 ? strtoull(arguments[2], NULL, 10) : 0;
    signal(SIGUSR1, turn_hot);
    pthread_t one, two;
    pthread_create(&one, NULL, matcher, NULL);
    pthread_create(&two, NULL, poller, NULL);
    say_ready();
    for (;;) pause();
}
