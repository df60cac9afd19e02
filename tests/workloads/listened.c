/* A static tracepoint that is reached only while somebody listens. */
#define _SDT_HAS_SEMAPHORES 1
#include <sys/sdt.h>
#include <unistd.h>
#include "common.h"

unsigned short listened_tick_semaphore __attribute__((section(".probes")));

int main(void) {
    say_ready();
    for (long number = 0;; number++) {
        usleep(2000);
        if (__builtin_expect(listened_tick_semaphore, 0)) DTRACE_PROBE1(listened, tick, number);
        sink++;
    }
}
