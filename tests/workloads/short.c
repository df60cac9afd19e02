/* Lives for as many milliseconds of processor time as its first argument says; with a second argument it leaves the work
 * to two children and waits for them. */
#include <sys/wait.h>
#include <unistd.h>
#include "common.h"

__attribute__((noinline)) void short_work(uint64_t ms) { BURN_MS(ms); sink++; }
__attribute__((noinline)) void child_work(uint64_t ms) { BURN_MS(ms); sink++; }

int main(int count, char **arguments) {
    uint64_t ms = count > 1 ? strtoull(arguments[1], NULL, 10) : 100;
    say_ready();
    if (count <= 2) {
        short_work(ms);
        return 0;
    }
    for (int i = 0; i < 2; i++) {
        if (fork() == 0) {
            child_work(ms);
            _exit(0);
        }
    }
    while (wait(NULL) > 0) {}
}
