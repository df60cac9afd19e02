/* Loads and unloads two libraries in turn, which get the same addresses, and works in both through the same call. */
#include <dlfcn.h>
#include "common.h"

__attribute__((noinline)) static void use(const char *path) {
    void *library = dlopen(path, RTLD_NOW);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    void (*work)(void) = (void (*)(void))dlsym(library, "work");
    work();
    dlclose(library);
}

int main(int count, char **paths) {
    if (count != 3) return 2;
    say_ready();
    for (;;) {
        use(paths[1]);
        use(paths[2]);
    }
}
