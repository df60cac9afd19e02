/* Waits in vfork for a child that works for a while in its memory. */
#define _GNU_SOURCE
#include <sys/wait.h>
#include <unistd.h>
#include "common.h"

__attribute__((noinline)) static void child_work(void) { BURN_MS(20); }

__attribute__((noinline)) void spawn_one(void) {
    pid_t child = vfork();
    if (child == 0) {
        child_work();
        _exit(0);
    }
    waitpid(child, NULL, 0);
    sink++;
}

__attribute__((noinline)) void serve(void) {
    spawn_one();
    sink++;
}

int main(void) {
    say_ready();
    for (;;) serve();
}
