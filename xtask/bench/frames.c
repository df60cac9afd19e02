/* Two threads that do nothing but compute at the bottom of a call chain: their own frames are exactly as many as the
 * argument says, the thread's first function and the last one included. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static volatile uint64_t sink;
static int frames;

__attribute__((noinline)) void bottom(void) {
    for (;;) sink = sink * 2862933555777941757u + 3037000493u;
}

__attribute__((noinline)) void descend(int frames_left) {
    if (frames_left > 1) {
        descend(frames_left - 1);
    } else {
        bottom();
    }
    sink++;
}

static void *begin(void *unused) {
    descend(frames - 2);
    return unused;
}

int main(int count, char **arguments) {
    frames = count > 1 ? atoi(arguments[1]) : 20;
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, begin, NULL);
    puts("ready");
    fflush(stdout);
    for (;;) pause();
}
