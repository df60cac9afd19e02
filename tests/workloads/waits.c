/* Threads that wait, each in a way of its own and for times that are known. No function keeps a frame pointer unless the
 * test asks for it. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "common.h"

#define NOINLINE __attribute__((noinline))

static void nap_us(long us) {
    struct timespec time = {us / 1000000, us % 1000000 * 1000};
    while (nanosleep(&time, &time) && errno == EINTR) {}
}

/* Two callers with frames of one size, which sleep at the same place: only their return addresses tell them apart. */
NOINLINE void nap(long us) { nap_us(us); sink++; }
NOINLINE void short_naps(void) { nap(1000); sink++; }
NOINLINE void long_naps(void) { nap(5000); sink++; }

static void *napper(void *unused) {
    pthread_setname_np(pthread_self(), "napper");
    for (;;) {
        TOLD("short_naps", short_naps());
        TOLD("long_naps", long_naps());
    }
    return unused;
}

/* Waits from before the recording to after it. */
NOINLINE void waits_for_ever(void) { for (;;) pause(); }

static void *sleeper(void *unused) {
    pthread_setname_np(pthread_self(), "sleeper");
    waits_for_ever();
    return unused;
}

/* Is woken by another thread, every 10 ms. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work = PTHREAD_COND_INITIALIZER;
static int pieces;

NOINLINE void takes_work(void) {
    pthread_mutex_lock(&lock);
    while (pieces == 0) pthread_cond_wait(&work, &lock);
    pieces--;
    pthread_mutex_unlock(&lock);
}

NOINLINE void gives_work(void) {
    pthread_mutex_lock(&lock);
    pieces++;
    pthread_cond_signal(&work);
    pthread_mutex_unlock(&lock);
}

static void *taker(void *unused) {
    pthread_setname_np(pthread_self(), "taker");
    for (;;) takes_work();
    return unused;
}

static void *giver(void *unused) {
    pthread_setname_np(pthread_self(), "giver");
    for (;;) { nap_us(10000); gives_work(); }
    return unused;
}

/* Waits for a child of vfork, which cannot be interrupted. */
NOINLINE void waits_for_child(void) {
    pid_t child = vfork();
    if (child == 0) { usleep(20000); _exit(0); }
    waitpid(child, NULL, 0);
}

static void *parent(void *unused) {
    pthread_setname_np(pthread_self(), "parent");
    for (;;) waits_for_child();
    return unused;
}

/* Two threads on one CPU, which wait for it by turns. */
NOINLINE void wants_the_cpu(void) { BURN_MS(1); sink++; }

static void *rival(void *unused) {
    cpu_set_t first;
    CPU_ZERO(&first);
    CPU_SET(0, &first);
    pthread_setaffinity_np(pthread_self(), sizeof first, &first);
    pthread_setname_np(pthread_self(), "rival");
    for (;;) wants_the_cpu();
    return unused;
}

int main(int argc, char **argv) {
    struct { const char *name; void *(*one)(void *), *(*two)(void *); } roles[] = {
        {"naps", napper, NULL}, {"sleeps", sleeper, NULL}, {"hands-over", taker, giver},
        {"forks", parent, NULL}, {"competes", rival, rival},
    };
    pthread_t thread;
    for (int i = 1; i < argc; i++) {
        for (unsigned r = 0; r < sizeof roles / sizeof *roles; r++) {
            if (strcmp(argv[i], roles[r].name)) continue;
            pthread_create(&thread, NULL, roles[r].one, NULL);
            if (roles[r].two) pthread_create(&thread, NULL, roles[r].two, NULL);
        }
    }
    usleep(100000); /* until they wait */
    say_ready();
    for (;;) pause();
}
