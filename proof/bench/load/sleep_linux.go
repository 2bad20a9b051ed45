package load

import (
	"syscall"
	"time"
)

// sleep blocks the thread for d, or less where a signal comes: to some 50 µs exactly.
func sleep(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&t, nil)
}
