/* Stacks that begin elsewhere than a thread's: of a context (`context`), of a coroutine that returns to a function whose
 * address was put there (`coroutine`), of a fiber as Boost.Context makes it (`fiber`). And one that an unwind table leads
 * astray (`wrong`): it does not know of a register that is on the stack. */
#include <string.h>
#include <ucontext.h>
#include "common.h"

static char stack[1 << 16] __attribute__((aligned(64)));
static ucontext_t first, second;

__attribute__((noinline)) void works(void) {
    for (int i = 0; i < 3000000; i++) sink = sink * 2862933555777941757u + 3037000493u;
    sink++;
}

__attribute__((noinline)) void is_entry(void) {
    for (;;) works();
}

/* Where a coroutine would return to. */
__attribute__((noinline)) void is_the_end(void) { abort(); }

/* Goes to its argument on a stack of its own, from which nobody returns. */
void on_stack(void (*entry)(void), uint64_t *stack);
__asm__(".text; .globl on_stack; .type on_stack, @function; on_stack: .cfi_startproc;"
        "mov %rsi, %rsp; mov %rdi, %rbx; lea .Lends_process(%rip), %rbp; jmp *%rdx; .cfi_endproc;"
        ".size on_stack, .-on_stack;"
        /* Nothing is said of this code. */
        ".p2align 4; .globl begins_fiber; .type begins_fiber, @function; begins_fiber:"
        ".fill 48, 1, 0x90; push %rbp; jmp *%rbx; .Lends_process: xor %rdi, %rdi; call _exit; hlt;"
        ".size begins_fiber, .-begins_fiber; .p2align 4;"
        ".globl jumps; .type jumps, @function; jumps: .cfi_startproc; jmp *%rbx; .cfi_endproc; .size jumps, .-jumps;");

/* Says that the return address is where a saved register is. */
void is_wrong(void (*called)(void));
__asm__(".text; .globl is_wrong; .type is_wrong, @function; is_wrong: .cfi_startproc;"
        "push %rbx; lea 1+in_the_middle(%rip), %rbx; push %rbx; call *%rdi; in_the_middle: nop; nop; pop %rbx; pop %rbx; ret;"
        ".cfi_endproc; .size is_wrong, .-is_wrong;");

int main(int count, char **arguments) {
    const char *how = count > 1 ? arguments[1] : "";
    uint64_t *top = (uint64_t *)(stack + sizeof stack) - 8;
    say_ready();
    if (!strcmp(how, "context")) {
        getcontext(&second);
        second.uc_stack.ss_sp = stack;
        second.uc_stack.ss_size = sizeof stack;
        second.uc_link = &first;
        makecontext(&second, is_entry, 0);
        swapcontext(&first, &second);
    } else if (!strcmp(how, "coroutine")) {
        *--top = (uint64_t)is_the_end;
        __asm__ volatile("call *%3" : : "D"(is_entry), "S"(top), "d"(({ extern void jumps(void); jumps; })), "r"(on_stack));
    } else if (!strcmp(how, "fiber")) {
        __asm__ volatile("lea 48+begins_fiber(%%rip), %%rdx; call *%2" : : "D"(is_entry), "S"(top), "r"(on_stack) : "rdx");
    } else {
        for (;;) is_wrong(works);
    }
    sink++;
}
