// A service that is calm until SIGUSR1, and then has an incident of a known kind, told by its argument.
#include <condition_variable>
#include <csignal>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>
#include <unistd.h>
#include "common.h"

#define NOINLINE __attribute__((noinline))
/* What stands at the end is called, not jumped to. */
#define STAY __asm__ volatile("")

static volatile sig_atomic_t is_bad;
static void begin(int) { is_bad = 1; }

/* A message is passed on, and whoever takes it has become slow. */
NOINLINE void relay_deliver(unsigned microseconds) { usleep(microseconds); STAY; }
NOINLINE void deliver() { relay_deliver(is_bad ? 80000 : 2000); STAY; }

/* Two locks that are taken in another order from then on. */
static std::mutex checking, savings;
NOINLINE void transfer(std::mutex &from, std::mutex &to) {
    std::lock_guard<std::mutex> one(from);
    usleep(is_bad ? 20000 : 100);
    std::lock_guard<std::mutex> other(to);
    sink++;
}

/* Workers that wait for jobs, of which one computes. */
class Pool {
    std::mutex mutex;
    std::condition_variable has_job;
    std::deque<std::function<void()>> jobs;

public:
    explicit Pool(int count) {
        for (int number = 0; number < count; number++) std::thread([this] { work(); }).detach();
    }
    NOINLINE void put(std::function<void()> job) {
        std::lock_guard<std::mutex> lock(mutex);
        jobs.push_back(std::move(job));
        has_job.notify_one();
    }
    NOINLINE void work() {
        for (;;) {
            std::unique_lock<std::mutex> lock(mutex);
            has_job.wait(lock, [this] { return !jobs.empty(); });
            auto job = std::move(jobs.front());
            jobs.pop_front();
            lock.unlock();
            job();
        }
    }
};
NOINLINE void resize_image(int ms) { BURN_MS(ms); STAY; }

/* A new function beside one that does more than before, though less of it all. All share their helpers. */
NOINLINE void hash_rows(int ms) { BURN_MS(ms); }
NOINLINE void copy_rows(int ms) { BURN_MS(ms); }
NOINLINE void parse_rows(int ms) { BURN_MS(ms); }
NOINLINE void sort_rows(int ms) { BURN_MS(ms); }
#define ALL(ms) do { hash_rows(ms); copy_rows(ms); parse_rows(ms); sort_rows(ms); STAY; } while (0)
NOINLINE void search(int ms) { ALL(ms); }
NOINLINE void list(int ms) { ALL(ms); }
NOINLINE void reindex(int ms) { ALL(ms); }

int main(int count, char **arguments) {
    if (count < 2) return 2;
    const std::string kind = arguments[1];
    signal(SIGUSR1, begin);
    say_ready();
    if (kind == "locks") {
        std::thread([] { for (;;) { transfer(checking, savings); usleep(20000); } }).detach();
        for (;;) {
            if (is_bad) transfer(savings, checking);
            else transfer(checking, savings);
            usleep(20000);
        }
    }
    if (kind == "pool") {
        Pool pool(6);
        for (;;) {
            pool.put([] { resize_image(is_bad ? 30 : 1); });
            usleep(100000);
        }
    }
    for (;;) {
        if (kind == "relay") deliver();
        else if (!is_bad) { search(2); list(1); usleep(100000); }
        else { search(3); reindex(5); list(2); usleep(100000); }
    }
}
