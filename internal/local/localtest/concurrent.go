package localtest

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
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

// Run calls f in a goroutine until the test ends, or the returned function is called. That ends f's context, waits for f, and requires
// that f returned no error.
func Run(t testing.TB, f func(ctx context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var err error
	var running sync.WaitGroup
	running.Go(func() { err = f(ctx) })
	stop = func() {
		t.Helper()
		cancel()
		running.Wait()
		require.NoError(t, err)
	}
	t.Cleanup(stop)
	return stop
}

// Buffer is a buffer, for example for a log, that is safe for concurrent use. The zero value is ready to use.
type Buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// String returns everything that was written.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
