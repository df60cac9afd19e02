/* Functions in assembly, each with another form of unwind table: frames that are based on any register, in the function that
 * runs and in its callers; found through memory; above an array; with the return address in a register. The frame pointer
 * leads nowhere in all of them. With `signals` they are interrupted all the time, with `pauses` the first that calls waits. */
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>
#include "common.h"

/* Runs for about a millisecond, changes flags and one register, and needs no stack. */
#define SPIN(register) "mov $1500000, %" register "; 1: dec %" register "; jnz 1b;"
#define BEGIN(name) ".globl " name "; .type " name ", @function; .p2align 4;" name ": .cfi_startproc;"
#define END(name) ".cfi_endproc; .size " name ", .-" name ";"

/* A function whose frame is based on a register that it need not keep. */
#define BY_REGISTER(register, counter)                                                                 \
    BEGIN("by_" register)                                                                              \
    "mov %rsp, %" register "; .cfi_def_cfa_register " register "; and $-64, %rsp; sub $128, %rsp;"     \
    SPIN(counter)                                                                                      \
    "mov %" register ", %rsp; .cfi_def_cfa_register rsp; ret;" END("by_" register)

/* One whose frame is based on a register that it keeps, and so do those that it calls. */
#define BY_KEPT(register)                                                                              \
    BEGIN("by_kept_" register)                                                                         \
    "push %" register "; .cfi_adjust_cfa_offset 8; .cfi_rel_offset " register ", 0;"                   \
    "mov %rsp, %" register "; .cfi_def_cfa_register " register "; and $-64, %rsp; sub $128, %rsp;"     \
    "call between;"                                                                                    \
    "mov %" register ", %rsp; .cfi_def_cfa_register rsp;"                                              \
    "pop %" register "; .cfi_adjust_cfa_offset -8; .cfi_restore " register "; ret;" END("by_kept_" register)

#define SAVE(register) "push %" register "; .cfi_adjust_cfa_offset 8; .cfi_rel_offset " register ", 0; mov $0x77, %" register ";"
#define RESTORE(register) "pop %" register "; .cfi_adjust_cfa_offset -8; .cfi_restore " register ";"

__asm__(".text;"
    BY_REGISTER("rax", "rcx") BY_REGISTER("rdx", "rcx") BY_REGISTER("rcx", "rdx") BY_REGISTER("rsi", "rcx")
    BY_REGISTER("rdi", "rcx") BY_REGISTER("r8", "rcx") BY_REGISTER("r9", "rcx") BY_REGISTER("r10", "rcx")
    BY_REGISTER("r11", "rcx")
    BY_KEPT("rbx") BY_KEPT("r12") BY_KEPT("r13") BY_KEPT("r14") BY_KEPT("r15")

    /* Saves all that functions keep, and runs; called by one that saves nothing. */
    BEGIN("keeps_all")
    SAVE("rbx") SAVE("r12") SAVE("r13") SAVE("r14") SAVE("r15") SPIN("rcx")
    RESTORE("r15") RESTORE("r14") RESTORE("r13") RESTORE("r12") RESTORE("rbx") "ret;"
    END("keeps_all")
    BEGIN("between") "sub $8, %rsp; .cfi_adjust_cfa_offset 8; call *below(%rip); add $8, %rsp; .cfi_adjust_cfa_offset -8; ret;"
    END("between")

    /* Parts of hand-written code agree on what they do not change. */
    BEGIN("by_part")
    "mov %rsp, %r11; .cfi_def_cfa_register r11; and $-64, %rsp; call part; mov %r11, %rsp; .cfi_def_cfa_register rsp; ret;"
    END("by_part")
    BEGIN("part") SPIN("rcx") "ret;" END("part")

    /* As gcc aligns a stack: *(rbp - 8). */
    BEGIN("by_aligned_frame")
    "lea 8(%rsp), %r10; .cfi_def_cfa r10, 0; and $-64, %rsp; push -8(%r10); push %rbp; mov %rsp, %rbp;"
    ".cfi_escape 0x10, 6, 2, 0x76, 0; push %r10; .cfi_escape 0x0f, 3, 0x76, 0x78, 6; sub $72, %rsp;"
    "call between; add $72, %rsp; pop %r10; .cfi_def_cfa r10, 0; pop %rbp; lea -8(%r10), %rsp; .cfi_def_cfa rsp, 8; ret;"
    END("by_aligned_frame")

    /* As OpenSSL does: *(rsp + 152) + 8. */
    BEGIN("by_word")
    "mov %rsp, %rax; .cfi_def_cfa_register rax; sub $192, %rsp; and $-64, %rsp; mov %rax, 152(%rsp);"
    ".cfi_escape 0x0f, 6, 0x77, 0x98, 1, 6, 0x23, 8; call between; mov 152(%rsp), %rsp; .cfi_def_cfa rsp, 8; ret;"
    END("by_word")

    /* The same by a register that functions keep: *(r12 + 16) + 8. */
    BEGIN("by_word_of_register")
    SAVE("r12") "mov %rsp, %rax; .cfi_def_cfa_register rax; sub $192, %rsp; and $-64, %rsp; mov %rax, 16(%rsp);"
    "mov %rsp, %r12; .cfi_escape 0x0f, 5, 0x7c, 16, 6, 0x23, 16; call between; mov 16(%rsp), %rsp;"
    ".cfi_def_cfa rsp, 16;" RESTORE("r12") "ret;"
    END("by_word_of_register")

    /* As the multiplication of large numbers does: *(rsp + 8 + 8 * r9) + 8. */
    BEGIN("above_array")
    "mov %rsp, %rax; .cfi_def_cfa_register rax; mov $6, %r9d; sub $192, %rsp; and $-64, %rsp; mov %rax, 8(%rsp, %r9, 8);"
    ".cfi_escape 0x0f, 10, 0x77, 8, 0x79, 0, 0x38, 0x1e, 0x22, 6, 0x23, 8;" SPIN("rcx")
    "mov 8(%rsp, %r9, 8), %rsp; .cfi_def_cfa rsp, 8; ret;"
    END("above_array")

    /* As `vfork` and functions that change what is below them. */
    BEGIN("returns_by_register")
    "pop %rdx; .cfi_adjust_cfa_offset -8; .cfi_register rip, rdx;" SPIN("rcx")
    "push %rdx; .cfi_adjust_cfa_offset 8; .cfi_offset rip, -8; ret;"
    END("returns_by_register")

    /* Calls its argument with a frame pointer that leads nowhere. */
    BEGIN("without_frame_pointer")
    "push %rbp; .cfi_adjust_cfa_offset 8; .cfi_rel_offset rbp, 0; mov $0x1235, %ebp; call *%rdi;"
    "pop %rbp; .cfi_adjust_cfa_offset -8; .cfi_restore rbp; ret;"
    END("without_frame_pointer"));

#define FORMS(of) of(by_rax) of(by_rdx) of(by_rcx) of(by_rsi) of(by_rdi) of(by_r8) of(by_r9) of(by_r10) of(by_r11) \
    of(by_kept_rbx) of(by_kept_r12) of(by_kept_r13) of(by_kept_r14) of(by_kept_r15) of(by_part) \
    of(by_aligned_frame) of(by_word) of(by_word_of_register) of(above_array) of(returns_by_register)

typedef void form(void);
#define DECLARE(name) form name;
FORMS(DECLARE)
void without_frame_pointer(form *);

form keeps_all;
form *volatile below = keeps_all;

static void pauses(void) {
    pause();
    sink++;
}

#define RUN(name) without_frame_pointer(name);
__attribute__((noinline)) void each_form(void) {
    FORMS(RUN)
    sink++;
}

__attribute__((noinline)) void in_the_handler(void) { BURN_MS(2); sink++; }

static void handle(int number) {
    in_the_handler();
    sink += (uint64_t)number;
}

int main(int count, char **arguments) {
    if (count > 1 && !strcmp(arguments[1], "pauses")) below = pauses;
    if (count > 1 && !strcmp(arguments[1], "signals")) {
        struct sigaction action = {.sa_handler = handle};
        sigaction(SIGALRM, &action, NULL);
        struct itimerval every = {{0, 4000}, {0, 4000}};
        setitimer(ITIMER_REAL, &every, NULL);
    }
    say_ready();
    for (;;) each_form();
}
