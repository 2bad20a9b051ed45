package catalog

import (
	"context"
	"time"

	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// maxRunning bounds the lists that use Postgres at the same time, so that they leave connections to the reads of cold counters.
	maxRunning = 2
	// maxWaiting bounds the lists that wait for a slot. A page takes some 10 ms.
	maxWaiting = 64
	// waitTimeout bounds the wait for a slot.
	waitTimeout = 5 * time.Second
)

// gate lets a few callers run, and some more wait.
type gate struct{ running, entered chan struct{} }

func newGate(running, waiting int) gate {
	return gate{running: make(chan struct{}, running), entered: make(chan struct{}, running+waiting)}
}

// enter waits for a slot. The caller calls leave.
func (g gate) enter(ctx context.Context) (leave func(), err error) {
	select {
	case g.entered <- struct{}{}:
	default:
		return nil, overloaded(nil)
	}
	ctx, cancel := context.WithTimeout(ctx, waitTimeout)
	defer cancel()
	select {
	case g.running <- struct{}{}:
		return func() { <-g.running; <-g.entered }, nil
	case <-ctx.Done():
		<-g.entered
		return nil, overloaded(ctx.Err())
	}
}

func overloaded(err error) error {
	return &counter.Error{
		Code: counter.CodeOverloaded, Err: err, RetryAfter: retryAfter, Detail: "this process is busy with other lists; try again",
	}
}
