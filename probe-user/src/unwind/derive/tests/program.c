/* Kinds of code that compilers make frames for; see ../tests.rs. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((noreturn, noinline)) static void dies(const char *why) {
    fprintf(stderr, "%s\n", why);
    exit(3);
}

__attribute__((noinline)) static int chooses(int n, int m) {
    switch (n) {
    case 0: return m * 3;
    case 1: return m + puts("one");
    case 2: return m ^ 0x55;
    case 3: return printf("%d", m);
    case 4: return m / 7;
    case 5: return m << 2;
    case 6: m += rand(); return m;
    case 7: return m % 11;
    default: dies("no such case");
    }
}

__attribute__((noinline)) static long sums(int count, ...) {
    va_list list;
    long sum = 0;
    va_start(list, count);
    for (int i = 0; i < count; i++) sum += va_arg(list, int);
    va_end(list);
    return sum;
}

__attribute__((noinline)) static int recurses(int n) { return n < 2 ? 1 : recurses(n - 1) + recurses(n - 2); }

__attribute__((noinline)) static int array(int n) {
    char bytes[n + 1];
    memset(bytes, n, sizeof bytes);
    return bytes[n / 2] + puts(bytes);
}

static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

__attribute__((noinline)) static double many(double a, double b, long c, long d, long e, long f, long g, long h) {
    return a * b + (double)(c ^ d ^ e ^ f ^ g ^ h) + (double)labs(c);
}

struct large { long words[40]; };
__attribute__((noinline)) static struct large large(long n) {
    struct large made;
    for (int i = 0; i < 40; i++) made.words[i] = n * i;
    return made;
}

__attribute__((noinline)) static int last(int n) { return puts(n ? "a" : "b"); }
__attribute__((noinline)) int ends_with_a_call(int n) { return n > 3 ? last(n - 1) : chooses(n, n); }

__attribute__((noinline)) static int aligned(int n) {
    char bytes[64] __attribute__((aligned(64)));
    memset(bytes, n, sizeof bytes);
    return puts(bytes) + bytes[3];
}

int main(int argc, char **argv) {
    int numbers[] = {3, 1, 2};
    if (argc > 9) dies(argv[0]);
    qsort(numbers, 3, sizeof *numbers, compare);
    long sum = sums(3, numbers[0], numbers[1], numbers[2]) + recurses(argc) + array(argc) + chooses(argc, 4);
    sum += (long)many(argc, sum, 1, 2, 3, 4, 5, sum) + large(sum).words[argc] + ends_with_a_call(argc) + aligned(argc);
    return (int)sum;
}
