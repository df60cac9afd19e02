/* Loads the library that its first argument names 300 ms after SIGUSR1, writes the time of that (nanoseconds of the wall
 * clock) to the file that its second argument names, and is hot in the library from then on. */
#include <dlfcn.h>
#include <signal.h>
#include "common.h"

static volatile sig_atomic_t is_asked;

static void ask(int number) { is_asked = number; }

__attribute__((noinline)) void waits_to_be_asked(void) {
    while (!is_asked) BURN_MS(1);
    BURN_MS(300);
    sink++;
}

int main(int count, char **arguments) {
    if (count < 3) return 1;
    signal(SIGUSR1, ask);
    say_ready();
    waits_to_be_asked();
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    void *library = dlopen(arguments[1], RTLD_NOW);
    void (*work)(void) = library ? (void (*)(void))dlsym(library, "plugin_work") : NULL;
    FILE *file = fopen(arguments[2], "w");
    if (!work || !file) return 1;
    fprintf(file, "%lld\n", now.tv_sec * 1000000000ll + now.tv_nsec);
    fclose(file);
    for (;;) work();
}
