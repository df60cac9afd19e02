/* Does one thing so many times a second, for as long as it is not killed:
 *   floods forks RATE         children that end at once
 *   floods execs RATE PROGRAM children that become a program, which is to end at once
 *   floods self RATE          becomes itself, again and again
 *   floods maps RATE FOLDER   maps code of one file after the other, of 4,000 copies of itself that it makes in FOLDER
 *   floods ends               ends at once: what `execs` may become */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "common.h"

enum { FILES = 4000, CODE_BYTES = 4096 };

static void copy(const char *from, const char *to) {
    static char bytes[1 << 20];
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0755);
    ssize_t count = read(in, bytes, sizeof bytes);
    if (count <= 0 || write(out, bytes, count) != count) abort();
    close(in);
    close(out);
}

static void child(char **becomes) {
    int status;
    pid_t child = becomes ? vfork() : fork();
    if (child < 0) abort();
    if (!child) {
        if (becomes) execv(becomes[0], becomes);
        _exit(0);
    }
    if (waitpid(child, &status, 0) != child || status) abort();
}

static void map(const char *folder, int number) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%d.so", folder, number % FILES);
    int file = open(path, O_RDONLY);
    void *code = mmap(NULL, CODE_BYTES, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, CODE_BYTES);
    if (code == MAP_FAILED) abort();
    close(file);
    munmap(code, CODE_BYTES);
}

int main(int argc, char **argv) {
    if (argc < 3) return 0;
    const char *kind = argv[1];
    uint64_t gap = 1000000000u / strtoul(argv[2], NULL, 10), next = now_ns();
    char path[4096], *becomes[] = {argc > 3 ? argv[3] : argv[0], "ends", NULL};
    for (int number = 0; !strcmp(kind, "maps") && number < FILES; number++) {
        snprintf(path, sizeof path, "%s/%d.so", argv[3], number);
        copy(argv[0], path);
    }
    if (getenv("AGAIN") == NULL) say_ready();
    for (int number = 0;; number++) {
        next += gap;
        uint64_t now = now_ns();
        if (next > now) usleep((next - now) / 1000);
        else if (now - next > 100000000u) next = now;
        if (!strcmp(kind, "forks")) child(NULL);
        else if (!strcmp(kind, "execs")) child(becomes);
        else if (!strcmp(kind, "maps")) map(argv[3], number);
        else if (!strcmp(kind, "self")) {
            setenv("AGAIN", "1", 1);
            execv(argv[0], argv);
        }
    }
}
