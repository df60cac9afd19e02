/* A service that is calm until SIGUSR1, and then has an incident of a known kind for some seconds, in a function that is named
 * for it. Arguments: the kind; a folder on a real disk, for the kinds that write. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <regex.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common.h"

#define NOINLINE __attribute__((noinline))

static volatile sig_atomic_t has_begun;
static void begin(int signal) { (void)signal; has_begun = 1; }

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static double lasts = 15;

/* True from the signal on, for some seconds. */
static int is_bad(void) {
    static double since;
    if (!has_begun) return 0;
    if (since == 0) since = now();
    return now() - since < lasts;
}

static void name(const char *thread) { pthread_setname_np(pthread_self(), thread); }

/* What the service does when all is well: one percent of a processor, in a function that is known before. */
NOINLINE void serve(void) { BURN_MS(1); usleep(100000); }

/* 1. A loop that never finds what it waits for. */
NOINLINE void retry_order(void) { BURN_MS(100); }

/* 2. A pattern for which the matcher has to try everything. */
NOINLINE void check_address(int bad) {
    regex_t pattern;
    if (regcomp(&pattern, "^\\(a*\\)*\\1b$", 0)) exit(1);
    char text[64];
    size_t length = bad ? 24 : 4;
    memset(text, 'a', length);
    text[length] = 0;
    sink += (uint64_t)regexec(&pattern, text, 0, NULL, 0);
    regfree(&pattern);
}

/* 3. All keys in one bucket. */
struct entry { struct entry *next; uint64_t key; };
static struct entry *buckets[4096];
NOINLINE void put_session(uint64_t key, uint64_t hash) {
    struct entry *entry = malloc(sizeof *entry);
    entry->key = key;
    entry->next = buckets[hash % 4096];
    buckets[hash % 4096] = entry;
}
NOINLINE void find_session(uint64_t key, uint64_t hash) {
    for (struct entry *at = buckets[hash % 4096]; at; at = at->next)
        if (at->key == key) sink++;
}

/* 4. A sweep over the whole heap, again and again. */
static uint8_t *heap;
enum { HEAP = 64 << 20 };
NOINLINE void sweep_heap(void) {
    for (size_t at = 0; at < HEAP; at += 64) sink += heap[at]++;
}

/* 5. Every request writes a hundred lines. */
NOINLINE void log_debug(int file) {
    for (int line = 0; line < 200; line++) dprintf(file, "request %d: state is %d\n", line, line * 7);
}

/* 6. Everybody wants one lock, and whoever has it keeps it for long. */
static pthread_mutex_t ledger = PTHREAD_MUTEX_INITIALIZER;
NOINLINE void update_ledger(int bad) {
    pthread_mutex_lock(&ledger);
    if (bad) usleep(20000);
    pthread_mutex_unlock(&ledger);
}
NOINLINE void book_order(int bad) { update_ledger(bad); __asm__ volatile(""); }
static void *booking(void *unused) {
    name("booking");
    for (;;) { book_order(is_bad()); usleep(10000); }
    return unused;
}

/* 7. Each order is synced to the disk. */
NOINLINE void write_journal(int file, int bad) {
    static char block[16 << 20];
    double begin = now();
    do {
        if (pwrite(file, block, bad ? sizeof block : 16, 0) < 0) exit(1);
        if (bad && fsync(file)) exit(1);
        /* However fast the disk is. */
    } while (bad && now() - begin < 0.2);
}
NOINLINE void commit_order(int file, int bad) { write_journal(file, bad); __asm__ volatile(""); }

/* 8. Somebody else has become slow. */
static int ends[2];
static void *backend(void *unused) {
    name("backend");
    char byte;
    while (read(ends[1], &byte, 1) == 1) {
        usleep(is_bad() ? 200000 : 500);
        if (write(ends[1], &byte, 1) != 1) break;
    }
    return unused;
}
NOINLINE void ask_pricing(void) {
    char byte = 1;
    if (write(ends[0], &byte, 1) != 1 || read(ends[0], &byte, 1) != 1) exit(1);
}
NOINLINE void price_order(void) { ask_pricing(); __asm__ volatile(""); }

/* 9. A thread for each request. */
NOINLINE void *run_task(void *unused) {
    for (int second = 0; second < 12; second++) sleep(1);
    return unused;
}
NOINLINE void start_tasks(void) {
    for (int task = 0; task < 300; task++) {
        pthread_t thread;
        pthread_attr_t small;
        pthread_attr_init(&small);
        pthread_attr_setstacksize(&small, 64 << 10);
        if (pthread_create(&thread, &small, run_task, NULL)) exit(1);
        pthread_detach(thread);
    }
}

/* 10. What is remembered is never forgotten. */
NOINLINE void remember_session(void) {
    char *session = malloc(256 << 10);
    memset(session, 1, 256 << 10);
    sink += (uint64_t)(uintptr_t)session;
}

/* 11. Sorting by comparing all with all. */
NOINLINE void sort_rows(int bad) {
    static volatile uint32_t rows[16384];
    uint32_t count = bad ? 16384 : 400;
    for (uint32_t one = 0; one < count; one++)
        for (uint32_t other = 0; other < count; other++)
            if (rows[one] > rows[other]) rows[one] = other;
}
NOINLINE void layout(void) { BURN_MS(1); }
NOINLINE void render_page(int bad) { layout(); sort_rows(bad); __asm__ volatile(""); }

int main(int count, char **arguments) {
    if (count < 2) return 2;
    const char *kind = arguments[1];
    signal(SIGUSR1, begin);
    int file = -1;
    if (count > 2) {
        char path[4096];
        snprintf(path, sizeof path, "%s/journal-%d", arguments[2], getpid());
        file = open(path, O_CREAT | O_RDWR | O_TRUNC, 0600);
        if (file < 0) { perror(path); return 1; }
        unlink(path);
    }
    heap = malloc(HEAP);
    memset(heap, 1, HEAP);
    for (uint64_t key = 0; key < 200000; key++) put_session(key, key % 4 ? 7 : key);
    if (!strcmp(kind, "convoy"))
        for (int thread = 0; thread < 6; thread++) {
            pthread_t booker;
            if (pthread_create(&booker, NULL, booking, NULL)) return 1;
        }
    if (!strcmp(kind, "dependency")) {
        pthread_t other;
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) || pthread_create(&other, NULL, backend, NULL)) return 1;
    }
    name("worker");
    say_ready();
    /* Memory that grows is told from a step by growing on. */
    if (!strcmp(kind, "leak")) lasts = 90;
    int has_tasks = 0;
    for (;;) {
        int bad = is_bad();
        if (!strcmp(kind, "loop")) { if (bad) retry_order(); }
        else if (!strcmp(kind, "regex")) check_address(bad);
        else if (!strcmp(kind, "hash")) { for (int n = 0; n < (bad ? 200 : 1); n++) find_session(n, bad ? 7 : 8); }
        else if (!strcmp(kind, "sweep")) { if (bad) { for (int turn = 0; turn < 3; turn++) sweep_heap(); usleep(10000); } }
        else if (!strcmp(kind, "log")) { if (bad) log_debug(file); }
        else if (!strcmp(kind, "disk")) { commit_order(file, bad); usleep(2000); }
        else if (!strcmp(kind, "dependency")) { price_order(); usleep(2000); }
        else if (!strcmp(kind, "threads")) { if (bad && !has_tasks) { has_tasks = 1; start_tasks(); } }
        else if (!strcmp(kind, "leak")) { if (bad) { remember_session(); usleep(50000); } }
        else if (!strcmp(kind, "slow")) { render_page(bad); usleep(2000); }
        /* What happens in other threads leaves this one as it was. */
        int is_elsewhere = !strcmp(kind, "convoy") || !strcmp(kind, "threads");
        if (!bad || is_elsewhere) serve();
    }
}
