/* A service that is calm until SIGUSR1 and then keeps what it opens and the threads that it starts: sockets, files and eventfds,
 * each in a function that is named for it. Meanwhile another thread opens and closes files, as often as it can from the second
 * argument on; it says how often it did in a second, each second. The first argument is a folder. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common.h"

#define NOINLINE __attribute__((noinline))

static volatile sig_atomic_t has_begun;
static void begin(int signal) { (void)signal; has_begun = 1; }

NOINLINE void connect_backend(void) {
    struct sockaddr_in backend = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int connection = socket(AF_INET, SOCK_DGRAM, 0);
    if (connection < 0 || connect(connection, (struct sockaddr *)&backend, sizeof backend)) exit(1);
}

NOINLINE void open_report(const char *folder) {
    char path[4096];
    snprintf(path, sizeof path, "%s/report", folder);
    if (open(path, O_CREAT | O_RDWR, 0600) < 0) exit(1);
}

NOINLINE void make_event(void) {
    if (eventfd(0, 0) < 0) exit(1);
    __asm__ volatile("");
}

static void *works(void *unused) {
    for (;;) sleep(1);
    return unused;
}

NOINLINE void spawn_worker(int number) {
    char name[16];
    pthread_t worker;
    if (pthread_create(&worker, NULL, works, NULL)) exit(1);
    snprintf(name, sizeof name, "worker-%d", number);
    pthread_setname_np(worker, name);
}

NOINLINE int rotate_log(void) {
    int file = open("/dev/null", O_RDONLY);
    if (file < 0) exit(1);
    return close(file);
}

static void *rotates(void *is_fast) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    for (long count = 0, second = at.tv_sec;; count++) {
        sink += (uint64_t)rotate_log();
        if (!is_fast) usleep(1000);
        if (count % 64 == 0) clock_gettime(CLOCK_MONOTONIC, &at);
        if (at.tv_sec == second) continue;
        if (is_fast) printf("%ld\n", count), fflush(stdout);
        count = 0;
        second = at.tv_sec;
    }
}

int main(int count, char **arguments) {
    if (count < 2) return 2;
    signal(SIGUSR1, begin);
    pthread_t rotating;
    if (pthread_create(&rotating, NULL, rotates, count > 2 ? arguments : NULL)) return 1;
    pthread_setname_np(rotating, "rotating");
    say_ready();
    while (!has_begun) usleep(10000);
    for (int turn = 0; turn < 60; turn++) {
        connect_backend();
        if (turn % 2) open_report(arguments[1]);
        if (turn % 4 == 0) make_event();
        if (turn % 2) spawn_worker(turn);
        usleep(20000);
    }
    for (;;) sleep(1);
}
