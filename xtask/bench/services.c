/* Many services on one host: processes with threads that mostly sleep, and functions that are called at a known rate.
 *
 * services PROCESSES THREADS SECONDS: the threads of a process with its first one; everything ends after so many seconds
 * at the latest, and when the standard input ends. The first ten processes are called `front`, the next twenty `busy`,
 * all others `idle`. Each line of the standard input turns the first process hot, or calm again. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))
#define FRONT 10
#define BUSY 20
#define ROUNDS 2 /* how often a second every function is called */

static volatile uint64_t sink;

static uint64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000;
}

NOINLINE void computes(uint64_t microseconds) {
    for (uint64_t end = now_us() + microseconds; now_us() < end;) sink++;
}

NOINLINE void match_rules(void) {
    computes(1000);
    sink++;
}

#define STEP(tens, ones) NOINLINE void step_##tens##ones(void) { for (int i = 0; i < 1##tens##ones; i++) sink += 1##tens##ones; }
#define CALL(tens, ones) step_##tens##ones();
#define TEN(what, tens) what(tens, 0) what(tens, 1) what(tens, 2) what(tens, 3) what(tens, 4) what(tens, 5) what(tens, 6) \
    what(tens, 7) what(tens, 8) what(tens, 9)
#define FIFTY(what) TEN(what, 0) TEN(what, 1) TEN(what, 2) TEN(what, 3) TEN(what, 4)

FIFTY(STEP)

static void *pooled(void *unused) {
    unsigned seed = (unsigned)(uintptr_t)&seed;
    for (;;) {
        usleep(1500000u + (unsigned)rand_r(&seed) % 1000000u);
        computes(20);
    }
    return unused;
}

static void serve(int number, int threads, volatile int *is_hot) {
    int is_busy = number >= FRONT && number < FRONT + BUSY;
    prctl(PR_SET_NAME, number < FRONT ? "front" : is_busy ? "busy" : "idle");
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 * 1024);
    pthread_t thread;
    for (int i = 1; i < threads; i++) if (pthread_create(&thread, &small, pooled, NULL)) _exit(1);
    for (;;) {
        FIFTY(CALL)
        computes(100);
        for (int turn = 0; turn < 20 / ROUNDS; turn++) {
            if (number == 0 && *is_hot) {
                for (int i = 0; i < 50; i++) match_rules();
                continue;
            }
            usleep(50000);
            if (is_busy) computes(1000);
        }
    }
}

int main(int count, char **arguments) {
    if (count != 4) return 2;
    int processes = atoi(arguments[1]), threads = atoi(arguments[2]);
    unsigned seconds = (unsigned)atoi(arguments[3]);
    volatile int *is_hot = mmap(NULL, sizeof *is_hot, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (is_hot == MAP_FAILED) return 1;
    pid_t parent = getpid();
    for (int number = 0; number < processes; number++) {
        pid_t child = fork();
        if (child < 0) return 1;
        if (child) continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(1);
        alarm(seconds);
        serve(number, threads, is_hot);
    }
    alarm(seconds);
    sleep(2); /* until all threads are there */
    puts("ready");
    fflush(stdout);
    while (getchar() != EOF) *is_hot = !*is_hot;
    return 0;
}
