// Exceptions through twenty frames, so that samples land in the unwinder of the C++ runtime, too.
#include <stdexcept>
#include <string>
#include "common.h"

__attribute__((noinline)) static void descend(int calls_left, const std::string &message) {
    if (calls_left == 0) throw std::runtime_error(message);
    descend(calls_left - 1, message + "!");
    sink = sink + 1;
}

int main() {
    say_ready();
    for (;;) {
        try {
            descend(20, "again");
        } catch (const std::exception &error) {
            sink = sink + static_cast<uint64_t>(error.what()[0]);
        }
    }
}
