/* A function that is called very often, by a program that counts its own calls: `counts FILE loop WORK THREADS` calls it all
 * the time, each call with so many steps of work; `counts FILE pace RATE THREADS` calls it so often a second in each thread
 * and sleeps in between. FILE always has the number of calls and the time, in nanoseconds, at which there were so many. */
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>
#include "common.h"

#define MAX_THREADS 8

static struct { _Alignas(64) volatile uint64_t calls; } counts[MAX_THREADS];
static int is_paced;
static uint64_t value;

__attribute__((noinline)) int step(int work) {
    for (volatile int i = 0; i < work; i++) {}
    return work;
}

static void *calls(void *own) {
    volatile uint64_t *count = own;
    if (!is_paced) {
        for (;;) {
            step((int)value);
            ++*count;
        }
    }
    for (uint64_t begin = now_ns(), done = 0;;) {
        uint64_t due = (now_ns() - begin) / 1000 * value / 1000000;
        for (; done < due; done++) {
            step(1);
            ++*count;
        }
        usleep(200);
    }
    return NULL;
}

int main(int count, char **words) {
    if (count < 5) return 2;
    int file = open(words[1], O_WRONLY | O_CREAT, 0600), threads = atoi(words[4]);
    is_paced = !strcmp(words[2], "pace");
    value = strtoull(words[3], NULL, 10);
    for (int i = 0; i < threads && i < MAX_THREADS; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, calls, (void *)&counts[i].calls);
    }
    say_ready();
    for (;;) {
        char text[64];
        uint64_t sum = 0;
        for (int i = 0; i < MAX_THREADS; i++) sum += counts[i].calls;
        int length = snprintf(text, sizeof text, "%20llu %20llu\n", (unsigned long long)sum, (unsigned long long)now_ns());
        if (pwrite(file, text, (size_t)length, 0) != length) return 1;
        usleep(20000);
    }
}
