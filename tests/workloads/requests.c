/* Asynchronous work: one thread submits requests, another completes them five milliseconds later. Every tenth takes fifty,
 * and one is never completed. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/sdt.h>
#include <unistd.h>
#include "common.h"

#define NOINLINE __attribute__((noinline))

struct request { long padding; long id; uint64_t submitted_ns; };

enum { KEPT = 1024 };
static struct request requests[KEPT];
static int pipe_ends[2];

static void nap_us(long us) {
    struct timespec time = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&time, NULL);
}

NOINLINE void submit(struct request *request) {
    DTRACE_PROBE2(requests, submitted, request, request->id);
    if (write(pipe_ends[1], &request, sizeof request) < 0) _exit(1);
    sink++;
}

NOINLINE void complete(long id, struct request *request) {
    DTRACE_PROBE1(requests, completed, id);
    sink += id + request->id;
}

static void *works(void *unused) {
    struct request *request;
    while (read(pipe_ends[0], &request, sizeof request) == sizeof request) {
        if (request->id == 1) continue;
        nap_us(request->id % 10 == 9 ? 50000 : 5000);
        complete(request->id, request);
        tell_call("request", request->submitted_ns);
    }
    return unused;
}

int main(void) {
    pthread_t thread;
    if (pipe(pipe_ends)) return 1;
    pthread_create(&thread, NULL, works, NULL);
    say_ready();
    sleep(1);
    for (long id = 1;; id++) {
        struct request *request = &requests[id % KEPT];
        request->id = id;
        request->submitted_ns = now_ns();
        submit(request);
        nap_us(id % 10 == 9 ? 60000 : 7000);
    }
}
