/* Work and waits below a C library that has no unwind tables: formatting and sorting (with a callback) by threads of their
 * own, a wait on a condition, and a main thread that sleeps and is interrupted by signals. */
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>

#include "common.h"

#define APART __attribute__((noinline))

static APART void formats_numbers(void) {
    char text[256];
    for (int i = 0; i < 100; i++) {
        snprintf(text, sizeof text, "%d %s %f %lx", i, "some text", i / 3.0, (long)i);
        sink += (uint64_t)text[0];
    }
}

static APART int compares(const void *a, const void *b) {
    for (int i = 0; i < 20; i++) sink++;
    int left = *(const int *)a, right = *(const int *)b;
    return (left > right) - (left < right);
}

static APART void sorts_numbers(void) {
    int numbers[500];
    for (int i = 0; i < 500; i++) numbers[i] = i * 7919 % 503;
    qsort(numbers, 500, sizeof *numbers, compares);
    sink += (uint64_t)numbers[3];
}

static void *formats(void *nothing) {
    for (;;) formats_numbers();
    return nothing;
}

static void *sorts(void *nothing) {
    for (;;) sorts_numbers();
    return nothing;
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;

static APART void waits_for_long(void) {
    pthread_mutex_lock(&mutex);
    for (;;) pthread_cond_wait(&condition, &mutex);
}

static void *waits(void *nothing) {
    waits_for_long();
    return nothing;
}

static void in_the_handler(int number) {
    for (int i = 0; i < 100000; i++) sink += (uint64_t)number;
}

static APART void rest_a_while(void) {
    struct timespec time = {0, 3000000};
    nanosleep(&time, NULL);
    __asm__ volatile("");
}

static APART void work_loop(void) {
    for (;;) rest_a_while();
}

int main(void) {
    pthread_t thread;
    void *(*roles[])(void *) = {formats, sorts, waits};
    sigset_t alarm;
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    /* Threads inherit it, so that the signal is the main thread's. */
    pthread_sigmask(SIG_BLOCK, &alarm, NULL);
    for (int i = 0; i < 3; i++)
        if (pthread_create(&thread, NULL, roles[i], NULL) != 0) return 1;
    pthread_sigmask(SIG_UNBLOCK, &alarm, NULL);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = in_the_handler;
    sigaction(SIGALRM, &action, NULL);
    struct itimerval often = {{0, 5000}, {0, 5000}};
    setitimer(ITIMER_REAL, &often, NULL);
    say_ready();
    work_loop();
}
