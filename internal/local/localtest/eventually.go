package localtest

import (
	"testing"
	"time"
)

// Bounds of the pause between two calls of cond.
const (
	pollEveryMin = 2 * time.Millisecond
	pollEveryMax = 50 * time.Millisecond
)

// Eventually calls cond until it returns true. After timeout it fails the test with cond's last message. All tests wait this way. cond
// runs in the goroutine of the test, so it may use require. A call in progress is not interrupted.
func Eventually(t testing.TB, timeout time.Duration, cond func() (bool, string)) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	for pause := pollEveryMin; ; pause = min(2*pause, pollEveryMax) {
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
