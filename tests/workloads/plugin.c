/* The library that `dlopen.c` loads. */
#include "common.h"

__attribute__((noinline)) void plugin_hot(void) { burn_ms(10); sink++; }

void plugin_work(void) {
    plugin_hot();
    sink++;
}
