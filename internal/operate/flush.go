package operate

import (
	"context"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/tasks"
)

const (
	// MaxFlushKeys bounds the keys of a flush.
	MaxFlushKeys = 10_000

	// flushInterval is the pause between two reads of the backlog. A read needs seven commands for each shard that has keys to
	// count.
	flushInterval = 100 * time.Millisecond

	// drainInterval is the pause between two drains of one shard. One drain may not be enough: it may have begun before the last
	// write, or its worker may have died.
	drainInterval = time.Second
)

// Left counts the keys that were written before the flush and that Postgres still lacks.
type Left struct {
	Dirty    int64 // dirty keys without dead letters
	Retrying int64 // the part of Dirty that waits for a retry, because Postgres refused the row or it was locked
	Dead     int64 // dead letters, which no flush writes; not in Dirty
}

// Flush has the workers drain the shards of keys, or, if keys is nil, every shard that has dirty keys. It blocks until each key
// that was written before is in Postgres or dead, or until timeout. Later writes do not prolong it. With a timeout of 0 it does not
// wait. The error is one of Redis or ctx. Drains that were sent before it are done anyway.
func (s *Service) Flush(ctx context.Context, keys []counter.Key, timeout time.Duration) (left Left, err error) {
	sent := make(map[counter.Shard]time.Time)
	var before cache.Moment // nil: now
	err = poll(ctx, flushInterval, timeout, func() (bool, error) {
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
		return false, s.drain(ctx, u.Shards, sent)
	})
	return left, err
}

// FlushAside is Flush for keys, but also retries the keys that are set aside: the operator may have repaired the cause. This
// counts as no attempt. Keys that Postgres refuses again wait for their retry.
func (s *Service) FlushAside(ctx context.Context, keys []counter.Key, timeout time.Duration) (Left, error) {
	if err := s.cache.Requeue(ctx, keys); err != nil {
		return Left{}, err
	}
	return s.Flush(ctx, keys, timeout)
}

func (s *Service) unflushed(ctx context.Context, keys []counter.Key, before cache.Moment) (cache.Unflushed, error) {
	if keys == nil {
		return s.cache.Unflushed(ctx, before)
	}
	return s.cache.UnflushedOf(ctx, keys, before)
}

// drain sends a drain for each shard whose last drain was sent at least drainInterval ago. sent has the times of the last drains.
func (s *Service) drain(ctx context.Context, shards []counter.Shard, sent map[counter.Shard]time.Time) error {
	for _, shard := range shards {
		if time.Since(sent[shard]) < drainInterval {
			continue
		}
		sent[shard] = time.Now()
		if err := tasks.Send(ctx, s.sender, tasks.DrainNow(shard)); err != nil {
			return err
		}
	}
	return nil
}
