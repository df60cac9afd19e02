/* The main thread ends; another one goes on. */
#include <pthread.h>
#include "common.h"

__attribute__((noinline)) void goes_on(void) { BURN_MS(5); sink++; }

static void *work(void *unused) {
    for (;;) goes_on();
    return unused;
}

int main(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, work, NULL);
    say_ready();
    pthread_exit(NULL);
}
