/* A service that uses something for a while and then gives it back, over and over. The first argument says what: `files`,
 * `threads`, `cpu` or `disk`; the second how much of it (a file to write, for `disk`). The others are times in seconds: calm, in
 * use, calm, …; the last one lasts for ever. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>
#include "common.h"

static volatile int in_use;

static double now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void *sleeps(void *unused) {
    while (in_use) usleep(20000);
    return unused;
}

__attribute__((noinline)) void burns(void) { BURN_MS(5); sink++; }

__attribute__((noinline)) void writes(int file) {
    static char block[1 << 20];
    memset(block, (int)sink++, sizeof block);
    if (pwrite(file, block, sizeof block, 0) < 0 || fdatasync(file)) exit(1);
    usleep(50000);
}

int main(int count, char **arguments) {
    if (count < 4) return 2;
    const char *what = arguments[1];
    int number = atoi(arguments[2]), files[1024], disk = -1;
    if (number > 1024) return 2;
    if (!strcmp(what, "disk")) disk = open(arguments[2], O_CREAT | O_WRONLY, 0600);
    pthread_t threads[1024];
    say_ready();
    for (int phase = 3;; phase++) {
        int is_last = phase + 1 >= count;
        double end = now() + atof(arguments[phase]);
        in_use = (phase - 3) % 2;
        if (in_use && !strcmp(what, "files"))
            for (int i = 0; i < number; i++) files[i] = open("/dev/null", O_RDONLY);
        if (in_use && !strcmp(what, "threads"))
            for (int i = 0; i < number; i++) pthread_create(&threads[i], NULL, sleeps, NULL);
        while (is_last || now() < end) {
            if (in_use && !strcmp(what, "cpu")) burns();
            else if (in_use && disk >= 0) writes(disk);
            else usleep(20000);
        }
        if (in_use && !strcmp(what, "files"))
            for (int i = 0; i < number; i++) close(files[i]);
        if (in_use && !strcmp(what, "threads")) {
            in_use = 0;
            for (int i = 0; i < number; i++) pthread_join(threads[i], NULL);
        }
    }
}
