/* Loads the library that its argument names after it has started, and is hot in it. */
#include <dlfcn.h>
#include "common.h"

int main(int count, char **arguments) {
    void *library = count > 1 ? dlopen(arguments[1], RTLD_NOW) : NULL;
    void (*work)(void) = library ? (void (*)(void))dlsym(library, "plugin_work") : NULL;
    if (!work) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    say_ready();
    for (;;) work();
}
