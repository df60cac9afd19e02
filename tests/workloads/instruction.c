/* Signals arrive at the first instruction of a function. */
#include <signal.h>
#include <sys/time.h>
#include "common.h"

void jumps_to_itself(void);
__asm__(".globl jumps_to_itself\n.type jumps_to_itself,@function\njumps_to_itself: .cfi_startproc\n1: jmp 1b\n"
        ".cfi_endproc\n.size jumps_to_itself,.-jumps_to_itself");

__attribute__((noinline)) void in_the_handler(void) { BURN_MS(8); sink++; }

static void handle(int number) {
    in_the_handler();
    sink += (uint64_t)number;
}

__attribute__((noinline)) void is_interrupted(void) {
    jumps_to_itself();
    sink++;
}

int main(void) {
    struct sigaction action = {.sa_handler = handle};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval every = {{0, 10000}, {0, 10000}};
    setitimer(ITIMER_REAL, &every, NULL);
    say_ready();
    is_interrupted();
}
