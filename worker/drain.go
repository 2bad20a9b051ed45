package worker

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// drainLease is how long a drain has the shard for itself without a sign of life: longer than a batch takes, and
	// shorter than what a sweep may be late when the worker dies.
	drainLease = 5 * time.Second

	// maxDrain bounds one drain: half of a task's time-out. What is left gets another.
	maxDrain = 30 * time.Second

	// releaseTimeout bounds the end of a drain, which also runs after its context has ended.
	releaseTimeout = time.Second
)

// Drained is what a drain achieved, also when it ended with an error.
type Drained struct {
	Rows int64 // that Postgres took
	Busy bool  // another drain had the shard: nothing was done
}

// Drain flushes every key of the shard that was dirty when it began, batch after batch, oldest first. owner is this
// drain's name: of two drains of one shard, the later does nothing. Keys that became dirty meanwhile stay.
func (f *Flusher) Drain(ctx context.Context, shard counter.Shard, owner string) (Drained, error) {
	var drained Drained
	before := int64(0)
	defer func() {
		if before != 0 {
			f.release(ctx, shard, owner)
		}
	}()
	for started := time.Now(); time.Since(started) < maxDrain; {
		peeked, err := f.cache.PeekOldest(ctx, shard, f.batch, before, owner, drainLease)
		if err != nil {
			return drained, fmt.Errorf("drain: %w", err)
		}
		if peeked.Busy {
			drained.Busy = true
			return drained, nil
		}
		if before == 0 {
			before = peeked.At
		}
		done, err := f.flush(ctx, peeked)
		drained.Rows += done.rows
		if err != nil {
			return drained, fmt.Errorf("drain shard %s: %w", shard, err)
		}
		if len(peeked.Entries) < f.batch || done.settled == 0 {
			return drained, nil
		}
	}
	return drained, nil
}

func (f *Flusher) release(ctx context.Context, shard counter.Shard, owner string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if err := f.cache.Release(ctx, shard, owner); err != nil {
		f.logger.Warn("cannot release a drained shard; it is free again in "+drainLease.String(), "shard", shard, "error", err)
	}
}

// Leftover returns the keys of the shard that are due now, up to one batch; more reports that there are still others.
func (f *Flusher) Leftover(ctx context.Context, shard counter.Shard) (keys []counter.Key, more bool, err error) {
	due, err := f.cache.Due(ctx, shard, f.batch+1)
	if err != nil {
		return nil, false, err
	}
	if len(due) > f.batch {
		return due[:f.batch], true, nil
	}
	return due, false, nil
}

// DrainAll drains every shard, some at once, and reports what Postgres took and how many keys are still dirty.
func (f *Flusher) DrainAll(ctx context.Context, owner string) (rows, left int64, err error) {
	const atOnce = 4
	drained := make([]Drained, f.cache.Shards())
	var group errgroup.Group // a shard that fails does not keep the others from being drained
	group.SetLimit(atOnce)
	for i := range drained {
		group.Go(func() error {
			var err error
			drained[i], err = f.Drain(ctx, counter.Shard(i), owner)
			return err
		})
	}
	err = group.Wait()
	for _, d := range drained {
		rows += d.Rows
	}
	backlog, countErr := f.cache.Backlog(context.WithoutCancel(ctx))
	if err == nil {
		err = countErr
	}
	return rows, backlog.Dirty, err
}
