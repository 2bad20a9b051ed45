package operate

import (
	"context"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/tasks"
)

const (
	// MaxFlushKeys is the most keys that a flush may name.
	MaxFlushKeys = 10_000

	// flushInterval is the pause between two reads of the backlog, each of seven commands for each shard that has something
	// to count.
	flushInterval = 100 * time.Millisecond

	// drainInterval is the pause between two drains of one shard: the first may have begun before the last write, or its
	// worker may have died.
	drainInterval = time.Second
)

// Left is what was written before the flush was asked for, and is not in Postgres yet.
type Left struct {
	Dirty    int64 // keys, those that wait for a retry included
	Retrying int64 // of these, those that wait for a retry: Postgres refused them, or their row was locked
	Dead     int64 // keys that Postgres refused for good, which no flush writes there; not in Dirty
}

// Flush has the workers drain every shard that has dirty keys, or, unless keys is nil, those of keys. It blocks until all that
// was written before is in Postgres or dead, or bound has passed; later writes do not prolong it. A bound of 0 only
// asks. The error is one of Redis or ctx; what was asked for before it is done anyway.
func (s *Service) Flush(ctx context.Context, keys []counter.Key, bound time.Duration) (left Left, err error) {
	asked := make(map[counter.Shard]time.Time)
	var before cache.Moment // nil: now
	err = poll(ctx, flushInterval, bound, func() (bool, error) {
		u, err := s.unflushed(ctx, keys, before)
		if err != nil {
			left = Left{}
			return false, err
		}
		before = u.At
		left = Left{Dirty: u.Due + u.Retrying, Retrying: u.Retrying, Dead: u.Dead}
		if left.Dirty == 0 {
			return true, nil
		}
		return false, s.drain(ctx, u.Shards, asked)
	})
	return left, err
}

// FlushAside is Flush for keys, and retries now those that are set aside: the operator may have repaired the cause. It
// counts no attempt. What Postgres refuses again waits for its retry.
func (s *Service) FlushAside(ctx context.Context, keys []counter.Key, bound time.Duration) (Left, error) {
	if err := s.cache.Requeue(ctx, keys); err != nil {
		return Left{}, err
	}
	return s.Flush(ctx, keys, bound)
}

func (s *Service) unflushed(ctx context.Context, keys []counter.Key, before cache.Moment) (cache.Unflushed, error) {
	if keys == nil {
		return s.cache.Unflushed(ctx, before)
	}
	return s.cache.UnflushedOf(ctx, keys, before)
}

// drain sends a drain to each of shards that got none for drainInterval.
func (s *Service) drain(ctx context.Context, shards []counter.Shard, asked map[counter.Shard]time.Time) error {
	for _, shard := range shards {
		if time.Since(asked[shard]) < drainInterval {
			continue
		}
		asked[shard] = time.Now()
		if err := tasks.Send(ctx, s.sender, tasks.DrainNow(shard)); err != nil {
			return err
		}
	}
	return nil
}
