// Every tenth call is slow: it computes for ten milliseconds, and waits for twenty in each of four ways. Other goroutines
// compute all the time, on the same threads.
package main

import (
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"time"
)

var sink uint64

// A millisecond or so of work, which does not look at the clock: what others take on the same thread is not its.
var rounds = 1

func spin() {
	value := sink
	for i := 0; i < rounds; i++ {
		value = value*2862933555777941757 + 3037000493
	}
	sink = value
}

//go:noinline
func disturbs() {
	for {
		spin()
	}
}

//go:noinline
func computesLong() {
	for i := 0; i < 10; i++ {
		spin()
	}
}

//go:noinline
func sleepsLong() { time.Sleep(20 * time.Millisecond) }

//go:noinline
func receivesLong() {
	answers := make(chan int)
	time.AfterFunc(20*time.Millisecond, func() { answers <- 1 })
	sink += uint64(<-answers)
}

//go:noinline
func locksLong() {
	var lock sync.Mutex
	lock.Lock()
	time.AfterFunc(20*time.Millisecond, lock.Unlock)
	lock.Lock()
	sink++
}

// In the kernel: the thread waits as well.
//
//go:noinline
func blocksLong() {
	wait := syscall.NsecToTimespec(20e6)
	syscall.Nanosleep(&wait, nil)
}

//go:noinline
func answers(number int) int {
	if number%10 == 9 {
		computesLong()
		sleepsLong()
		receivesLong()
		locksLong()
		blocksLong()
	} else {
		spin()
	}
	return number
}

//go:noinline
func serves() {
	for number := 0; ; number++ {
		sink += uint64(answers(number))
		time.Sleep(time.Millisecond)
	}
}

func main() {
	runtime.GOMAXPROCS(2)
	var usage syscall.Rusage
	used := func() int64 {
		syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
		return usage.Utime.Nano()
	}
	for used(); ; rounds *= 2 {
		before := used()
		spin()
		if took := used() - before; took > 20e6 {
			rounds = int(int64(rounds) * 1e6 / took)
			break
		}
	}
	for i := 0; i < 2; i++ {
		go disturbs()
	}
	for i := 0; i < 3; i++ {
		go serves()
	}
	fmt.Println("ready")
	select {}
}
