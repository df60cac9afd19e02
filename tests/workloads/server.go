// A server: every request is a goroutine that goes on in whatever thread is free. A request takes two milliseconds, every
// tenth twenty; its stack grows and is moved meanwhile, and every fifth panics halfway and recovers.
package main

import (
	"fmt"
	"time"
)

var sink int

//go:noinline
func grow(depth int) int {
	var room [128]int
	room[depth%128] = depth
	if depth == 0 {
		return 0
	}
	return grow(depth-1) + room[depth%128]
}

//go:noinline
func fails(number int) int {
	time.Sleep(time.Millisecond)
	if number%5 == 0 {
		panic(number)
	}
	return number
}

//go:noinline
func handle(number int) int {
	if number%10 == 9 {
		time.Sleep(20 * time.Millisecond)
	} else {
		time.Sleep(time.Millisecond)
		grow(number % 50 * 10)
		time.Sleep(time.Millisecond)
	}
	return number
}

//go:noinline
func request(number int, done chan int) {
	defer func() {
		recover()
		done <- number
	}()
	begin := time.Now()
	handle(number)
	// By its own clock: where others keep the machine busy, it sleeps for longer than it asked for.
	fmt.Println("told", "handle", time.Since(begin).Nanoseconds())
	fails(number)
}

func main() {
	fmt.Println("ready")
	done := make(chan int)
	number := 0
	for {
		for i := 0; i < 8; i++ {
			number++
			go request(number, done)
		}
		for i := 0; i < 8; i++ {
			sink += <-done
		}
		time.Sleep(10 * time.Millisecond)
	}
}
