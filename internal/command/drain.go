package command

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// drainEvery is the pause between two rounds of a worker that is to end when nothing is dirty.
const drainEvery = 200 * time.Millisecond

// drainer is a worker.Worker.
type drainer interface {
	DrainAll(ctx context.Context, owner string) (rows, left int64, err error)
}

// drainUntilClean drains until nothing is dirty but dead letters, or bound has passed; 0 is no bound. What waits for another
// try is waited for: the tasks that try it run in this process too. Postgres being away is waited out.
func drainUntilClean(ctx context.Context, work drainer, owner string, bound time.Duration) error {
	if bound > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, bound)
		defer cancel()
	}
	last := int64(-1)
	for {
		_, left, err := work.DrainAll(ctx, owner)
		if err == nil && left == 0 {
			return nil
		}
		if err == nil {
			last = left
		}
		select {
		case <-ctx.Done():
			return notDrained(ctx, bound, last)
		case <-time.After(drainEvery):
		}
	}
}

// notDrained says why a drain ended early. left counts the counters that are dirty; below 0: unknown.
func notDrained(ctx context.Context, bound time.Duration, left int64) error {
	why := "told to stop"
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		why = "not drained after " + bound.String()
	}
	if left < 0 {
		return fmt.Errorf("%s: redis or postgres did not answer", why)
	}
	return fmt.Errorf("%s: %d counters are still dirty", why, left)
}
