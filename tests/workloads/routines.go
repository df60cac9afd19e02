// Goroutines: one computes, one keeps the runtime busy with maps and memory, one asks the kernel. A recursion of known
// depth is below each.
package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

const depth = 50

var sink uint64

//go:noinline
func computes() {
	for end := time.Now().Add(5 * time.Millisecond); time.Now().Before(end); {
		for i := 0; i < 100000; i++ {
			sink = sink*2862933555777941757 + 3037000493
		}
	}
}

//go:noinline
func usesTheRuntime() {
	counts := map[string]int{}
	for i := 0; i < 2000; i++ {
		counts[strings.Repeat("k", i%100)+fmt.Sprint(i)]++
	}
	copied := make([]byte, 1<<20)
	copy(copied[1<<19:], copied)
	sink += uint64(len(counts)) + uint64(copied[1<<19])
}

var zeros *os.File
var buffer = make([]byte, 1<<20)

//go:noinline
func asksTheKernel() {
	for i := 0; i < 8; i++ {
		n, _ := zeros.Read(buffer)
		sink += uint64(n)
	}
}

//go:noinline
func descend(left int, work func()) {
	if left == 1 {
		for {
			work()
		}
	}
	descend(left-1, work)
	sink++
}

func main() {
	var err error
	if zeros, err = os.Open("/dev/zero"); err != nil {
		panic(err)
	}
	go descend(depth, usesTheRuntime)
	go descend(depth, asksTheKernel)
	fmt.Println("ready")
	descend(depth, computes)
}
