package localtest

import (
	"testing"
	"time"
)

// Pauses between two looks of Eventually.
const (
	lookEveryMin = 2 * time.Millisecond
	lookEveryMax = 50 * time.Millisecond
)

// Eventually calls cond until it reports true, and fails the test with cond's last message when timeout has passed. It is
// the only way in which tests wait. cond runs in the goroutine of the test, so it may use require; a call in progress is not cut off.
func Eventually(t testing.TB, timeout time.Duration, cond func() (bool, string)) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	for pause := lookEveryMin; ; pause = min(2*pause, lookEveryMax) {
		ok, message := cond()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", timeout, message)
		}
		time.Sleep(pause)
	}
}
