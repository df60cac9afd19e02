/* Calls a function all the time, and makes children which do so, too: some that stay and others that end or become another
 * program. When it is told by SIGUSR1: given `exits`, it ends in the middle of such a call; given `execs`, it becomes itself again,
 * once; else it makes one more child that stays.
 * A child that ends in any other way than it should ends the whole program. */
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "common.h"

__attribute__((noinline)) int works(int ends) {
    usleep(200);
    if (ends) exit(0);
    sink++;
    return 0;
}

static volatile sig_atomic_t told;
static void on_signal(int number) { told = number; }

static pid_t child(int calls, char **becomes) {
    pid_t child = fork();
    if (child) return child;
    // By its name the test knows one that stays.
    if (calls < 0) prctl(PR_SET_NAME, "stays");
    for (int i = 0; calls < 0 || i < calls; i++) works(0);
    if (becomes) execv(becomes[0], becomes);
    _exit(0);
}

int main(int argc, char **argv) {
    const char *role = argc > 1 ? argv[1] : "";
    if (!strcmp(role, "")) child(-1, NULL);
    signal(SIGUSR1, on_signal);
    if (strcmp(role, "again")) say_ready();
    for (int number = 0;; number++) {
        works(0);
        if (!strcmp(role, "exits") && told) works(1);
        if (!strcmp(role, "execs") && told) execl(argv[0], argv[0], "again", NULL);
        if (strcmp(role, "") || number % 200) continue;
        if (told) child(-1, NULL);
        told = 0;
        int status;
        char *truth[] = {"/bin/true", NULL};
        pid_t one = child(20, NULL), other = child(20, truth);
        if (waitpid(one, &status, 0) != one || status) abort();
        if (waitpid(other, &status, 0) != other || status) abort();
    }
}
