// Works in C, which Go runs on the stack of its thread.
package main

/*
#include <stdint.h>

static volatile uint64_t sink;

static __attribute__((noinline)) void in_c(void) {
    for (int i = 0; i < 10000000; i++) sink = sink * 2862933555777941757u + 3037000493u;
}
*/
import "C"

import "fmt"

//go:noinline
func asksC() {
	C.in_c()
}

func main() {
	fmt.Println("ready")
	for {
		asksC()
	}
}
