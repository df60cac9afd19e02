/* Named threads, each with a hot function of its own. */
#define _GNU_SOURCE
#include <pthread.h>
#include <unistd.h>
#include "common.h"

__attribute__((noinline)) void alpha_work(void) { BURN_MS(5); sink++; }
__attribute__((noinline)) void beta_work(void) { BURN_MS(5); sink++; }

static void *alpha(void *unused) {
    pthread_setname_np(pthread_self(), "alpha");
    for (;;) alpha_work();
    return unused;
}

static void *beta(void *unused) {
    pthread_setname_np(pthread_self(), "beta");
    for (;;) beta_work();
    return unused;
}

int main(void) {
    pthread_t one, two;
    pthread_create(&one, NULL, alpha, NULL);
    pthread_create(&two, NULL, beta, NULL);
    say_ready();
    for (;;) pause();
}
