/* Loads the libraries that its arguments name, says so, and computes. */
#include <dlfcn.h>
#include <stdio.h>

volatile unsigned long sink;

int main(int count, char **arguments) {
    for (int i = 1; i < count; i++) {
        if (!dlopen(arguments[i], RTLD_NOW | RTLD_LOCAL)) {
            puts(dlerror());
            return 1;
        }
    }
    puts("ready");
    fflush(stdout);
    for (;;) sink = sink * 2862933555777941757u + 3037000493u;
}
