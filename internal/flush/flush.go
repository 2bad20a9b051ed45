package flush

import (
	"context"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/tasks"
)

const (
	// MaxKeys is the most keys that can be named.
	MaxKeys = 10_000

	// lookEvery is the pause between two looks, each of seven commands for each shard that has something to count.
	lookEvery = 100 * time.Millisecond

	// askEvery is the pause between two drains of one shard: the first may have begun before the last write, or be one of a
	// worker that has died.
	askEvery = time.Second
)

// Left is what Postgres does not have yet of what was written before the flush was asked for.
type Left struct {
	Dirty    int64 // keys, those that wait for another try included
	Retrying int64 // of these, those that wait for another try: Postgres refused them, or their row was locked
	Dead     int64 // keys that Postgres refused for good, which no flush brings there; not in Dirty
}

// Flusher asks for flushes. It is safe for concurrent use.
type Flusher struct {
	cache  *cache.Cache
	sender tasks.Sender
}

// New returns a Flusher. What it is made of stays the caller's to close.
func New(c *cache.Cache, sender tasks.Sender) *Flusher {
	return &Flusher{cache: c, sender: sender}
}

// Flush has the workers drain every shard that has dirty keys, or those of keys alone, and blocks until all that was
// written before is in Postgres, dead, or bound has passed. What is written meanwhile does not keep it. A bound of 0 only
// asks. The error is one of Redis; what was asked for before it is done all the same.
func (f *Flusher) Flush(ctx context.Context, keys []counter.Key, bound time.Duration) (Left, error) {
	deadline := time.Now().Add(bound)
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	asked := make(map[counter.Shard]time.Time)
	var before cache.Moment // nil: the moment of the look
	for {
		u, err := f.unflushed(ctx, keys, before)
		if err != nil {
			return Left{}, err
		}
		before = u.At
		left := Left{Dirty: u.Due + u.Retrying, Retrying: u.Retrying, Dead: u.Dead}
		if left.Dirty == 0 {
			return left, nil
		}
		if err := f.ask(ctx, u.Shards, asked); err != nil {
			return left, err
		}
		if !time.Now().Before(deadline) {
			return left, nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return left, ctx.Err()
		}
	}
}

// FlushAside is Flush for keys, and tries those now that are set aside. It is for operators, who may have mended what
// kept them: Postgres is asked as often as they ask. No attempt is counted. What Postgres refuses again waits for its retry.
func (f *Flusher) FlushAside(ctx context.Context, keys []counter.Key, bound time.Duration) (Left, error) {
	if err := f.cache.Requeue(ctx, keys); err != nil {
		return Left{}, err
	}
	return f.Flush(ctx, keys, bound)
}

func (f *Flusher) unflushed(ctx context.Context, keys []counter.Key, before cache.Moment) (cache.Unflushed, error) {
	if keys == nil {
		return f.cache.Unflushed(ctx, before)
	}
	return f.cache.UnflushedOf(ctx, keys, before)
}

// ask sends a drain for each of shards that got none for a while.
func (f *Flusher) ask(ctx context.Context, shards []counter.Shard, asked map[counter.Shard]time.Time) error {
	for _, shard := range shards {
		if time.Since(asked[shard]) < askEvery {
			continue
		}
		asked[shard] = time.Now()
		if err := tasks.Send(ctx, f.sender, tasks.DrainNow(shard)); err != nil {
			return err
		}
	}
	return nil
}
