/* Calls that do not return because their thread ends, or the program becomes another one, and a function whose loop jumps to
 * its own first instruction. */
#define _GNU_SOURCE
#include <pthread.h>
#include <string.h>
#include <unistd.h>
#include "common.h"

#define NOINLINE __attribute__((noinline))

NOINLINE void last_words(int way) {
    for (int i = 0; i < 1000; i++) sink++;
    if (way == 0) pthread_exit(NULL);
    if (way == 1) for (;;) pause();
    sink++;
}

static void *ends(void *way) {
    last_words((int)(intptr_t)way);
    return NULL;
}

/* In every other program it is another thread than the first that becomes the next. */
static int by_thread;

static void *becomes(void *self) {
    for (int i = 0; i < 50; i++) {
        last_words(2);
        usleep(1000);
    }
    execl(self, self, "exec", by_thread ? "itself" : "thread", NULL);
    return NULL;
}

NOINLINE void replaces(void *self) {
    pthread_t thread;
    if (!by_thread) becomes(self);
    pthread_create(&thread, NULL, becomes, self);
    pthread_join(thread, NULL);
}

/* rdi counts down; the jump goes to the very first instruction. */
__asm__(".globl loops\n.type loops, @function\nloops:\n decq %rdi\n jg loops\n ret\n.size loops, . - loops\n");
void loops(long count);

int main(int count, char **words) {
    say_ready();
    by_thread = count > 2 && !strcmp(words[2], "thread");
    if (count > 1 && !strcmp(words[1], "exec")) replaces(words[0]);
    if (count > 1 && !strcmp(words[1], "loops")) {
        for (;;) {
            loops(10);
            usleep(2000);
        }
    }
    for (;;) {
        for (intptr_t way = 0; way < 2; way++) {
            pthread_t thread;
            pthread_create(&thread, NULL, ends, (void *)way);
            usleep(2000);
            if (way == 1) pthread_cancel(thread);
            pthread_join(thread, NULL);
        }
        usleep(2000);
    }
}
