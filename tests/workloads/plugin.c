/* The library that `dlopen.c` loads. */
#include "common.h"

__attribute__((noinline)) void plugin_hot(void) { BURN_MS(10); sink++; }

void plugin_work(void) {
    plugin_hot();
    sink++;
}
