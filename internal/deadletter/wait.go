package deadletter

import (
	"context"
	"slices"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// lookEvery is the pause between two looks at keys that are waited for.
const lookEvery = 200 * time.Millisecond

// Outcome says what became of redriven keys.
type Outcome struct {
	Clean   []counter.Key // Postgres has them
	Dead    []counter.Key // Postgres refused them for good again
	Waiting []counter.Key // neither, when the time was over: they wait for a flush or a retry
}

// Wait blocks until each of keys is clean or dead, but no longer than bound and until ctx ends, and says which. A look
// costs one bounded call for up to 500 keys of a shard, five times a second.
func (b *Box) Wait(ctx context.Context, keys []counter.Key, bound time.Duration) (Outcome, error) {
	var done Outcome
	deadline := time.NewTimer(bound)
	defer deadline.Stop()
	pause := time.NewTicker(lookEvery)
	defer pause.Stop()
	waiting := make(map[counter.Shard][]counter.Key)
	for _, key := range keys {
		waiting[b.cache.Shard(key)] = append(waiting[b.cache.Shard(key)], key)
	}
	for over := false; ; {
		if err := b.look(ctx, waiting, &done); err != nil {
			return done, err
		}
		if over || len(waiting) == 0 {
			for _, left := range waiting {
				done.Waiting = append(done.Waiting, left...)
			}
			slices.Sort(done.Clean)
			slices.Sort(done.Dead)
			slices.Sort(done.Waiting)
			return done, nil
		}
		select {
		case <-pause.C:
		case <-deadline.C:
			over = true // after a last look
		case <-ctx.Done():
			return done, ctx.Err()
		}
	}
}

// look moves the keys that have settled from waiting to done.
func (b *Box) look(ctx context.Context, waiting map[counter.Shard][]counter.Key, done *Outcome) error {
	for shard, keys := range waiting {
		var left []counter.Key
		for part := range slices.Chunk(keys, page) {
			conditions, err := b.cache.Conditions(ctx, shard, part)
			if err != nil {
				return err
			}
			for i, key := range part {
				switch conditions[i] {
				case cache.Clean:
					done.Clean = append(done.Clean, key)
				case cache.IsDead:
					done.Dead = append(done.Dead, key)
				default:
					left = append(left, key)
				}
			}
		}
		if len(left) == 0 {
			delete(waiting, shard)
		} else {
			waiting[shard] = left
		}
	}
	return nil
}
