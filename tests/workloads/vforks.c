/* Waits in vfork for a child that works for a while in its memory; with an argument, for a moment only, and by turns in fork for
 * one that has a copy. */
#define _GNU_SOURCE
#include <sys/wait.h>
#include <unistd.h>
#include "common.h"

static int is_brief;

__attribute__((noinline)) static void child_work(void) {
    if (is_brief) {
        for (int i = 0; i < 300000; i++) sink++;
    } else {
        BURN_MS(20);
    }
}

__attribute__((noinline)) void spawn_one(void) {
    pid_t child = vfork();
    if (child == 0) {
        child_work();
        _exit(0);
    }
    waitpid(child, NULL, 0);
    sink++;
}

__attribute__((noinline)) void copy_one(void) {
    pid_t child = fork();
    if (child == 0) {
        child_work();
        _exit(0);
    }
    waitpid(child, NULL, 0);
    sink++;
}

__attribute__((noinline)) void serve(void) {
    spawn_one();
    if (is_brief) copy_one();
    sink++;
}

int main(int count, char **words) {
    (void)words;
    is_brief = count > 1;
    say_ready();
    for (;;) serve();
}
