/* Hot inside a system call. It is made without the C library, whose wrappers keep no frame pointer, so that the function
 * that asks is the one whose frame the kernel interrupts. */
#include <fcntl.h>
#include <sys/syscall.h>
#include "common.h"

static inline long read_raw(long file, void *buffer, unsigned long size) {
#if defined(__x86_64__)
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"((long)SYS_read), "D"(file), "S"(buffer), "d"(size) : "rcx", "r11", "memory");
    return result;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = SYS_read;
    register long x0 __asm__("x0") = file;
    register void *x1 __asm__("x1") = buffer;
    register unsigned long x2 __asm__("x2") = size;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
#endif
}

static char buffer[1 << 20];

__attribute__((noinline)) void asks_the_kernel(int zeros) {
    for (int i = 0; i < 16; i++) sink += (uint64_t)read_raw(zeros, buffer, sizeof buffer);
}

int main(void) {
    int zeros = open("/dev/zero", O_RDONLY);
    say_ready();
    for (;;) asks_the_kernel(zeros);
}
