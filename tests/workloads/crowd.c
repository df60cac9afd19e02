/* 64 threads, each with a name and a hot function of its own. */
#define _GNU_SOURCE
#include <pthread.h>
#include <unistd.h>
#include "common.h"

#define THREAD(n)                                                              \
    __attribute__((noinline)) void work_##n(void) { BURN_MS(1); sink++; }      \
    static void *thread_##n(void *unused) {                                    \
        pthread_setname_np(pthread_self(), "thread-" #n);                      \
        for (;;) work_##n();                                                   \
        return unused;                                                         \
    }
#define EIGHT(X, n) X(n##0) X(n##1) X(n##2) X(n##3) X(n##4) X(n##5) X(n##6) X(n##7)
/* Named by their octal numbers. */
#define ALL(X) EIGHT(X, 0) EIGHT(X, 1) EIGHT(X, 2) EIGHT(X, 3) EIGHT(X, 4) EIGHT(X, 5) EIGHT(X, 6) EIGHT(X, 7)

ALL(THREAD)

#define START(n) pthread_create(&thread, NULL, thread_##n, NULL);

int main(void) {
    pthread_t thread;
    ALL(START)
    say_ready();
    for (;;) pause();
}
