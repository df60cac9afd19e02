/* A process whose children do the work: two that stay, and one after the other that makes 20 calls and ends. How many calls there
 * were in all of them is the first word of the file that is named. */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "common.h"

static unsigned long *calls;
__attribute__((noinline)) void handle_query(void) { usleep(2000); __atomic_fetch_add(calls, 1, __ATOMIC_RELAXED); }

int main(int count, char **arguments) {
    if (count < 2) return 2;
    int file = open(arguments[1], O_CREAT | O_RDWR, 0600);
    if (file < 0 || ftruncate(file, sizeof *calls)) return 1;
    calls = mmap(NULL, sizeof *calls, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (calls == MAP_FAILED) return 1;
    pid_t parent = getpid();
    for (int child = 0; child < 2; child++)
        if (!fork()) {
            while (getppid() == parent) handle_query();
            _exit(0);
        }
    say_ready();
    for (;;) {
        pid_t child = fork();
        if (!child) {
            usleep(200000);
            for (int call = 0; call < 20; call++) handle_query();
            _exit(0);
        }
        int status;
        waitpid(child, &status, 0);
    }
}
