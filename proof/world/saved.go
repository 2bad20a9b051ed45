package world

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// copyBatch is how many keys are copied in one round trip.
	copyBatch = 1000
	// savedMax is how long a saved state is good for: its keys in Redis go on aging, and clean counters leave when they are idle
	// for AFTERWRITE_CLEAN_TTL, an hour.
	savedMax = 30 * time.Minute
)

// Save keeps the rows and the keys in Redis as they are, for Restore. No process of afterwrite may be running: what it writes
// meanwhile is kept in part.
//
// Redis copies its keys itself, whatever they are, so that this does not depend on how a version keeps its counters.
func (s *Stage) Save(ctx context.Context) error {
	if s.saved == nil {
		_, client, err := s.server.next()
		if err != nil {
			return err
		}
		s.saved = client
	}
	if err := copyKeys(ctx, s.Redis, s.saved); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	s.savedAt = time.Now()
	return s.execute(ctx, "DROP TABLE IF EXISTS bench_saved", "CREATE TABLE bench_saved AS TABLE counters")
}

// Saved reports whether there is something to restore that was saved not too long ago.
func (s *Stage) Saved() bool { return time.Since(s.savedAt) < savedMax }

// Restore makes both databases what they were when Save was called, and settles them as Reset does.
func (s *Stage) Restore(ctx context.Context) error {
	if err := copyKeys(ctx, s.saved, s.Redis); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if err := s.execute(ctx, "TRUNCATE counters", "INSERT INTO counters TABLE bench_saved"); err != nil {
		return err
	}
	return s.Settle(ctx)
}

// copyKeys makes to the same as from, which is another database of the same Redis. Keys that expire keep their time.
func copyKeys(ctx context.Context, from, to *redis.Client) error {
	if err := to.FlushDB(ctx).Err(); err != nil {
		return fmt.Errorf("empty redis: %w", err)
	}
	for cursor := uint64(0); ; {
		keys, next, err := from.Scan(ctx, cursor, "", copyBatch).Result()
		if err != nil {
			return fmt.Errorf("read the keys: %w", err)
		}
		_, err = from.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for _, key := range keys { // SCAN may give one twice
				pipe.Copy(ctx, key, key, to.Options().DB, true)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("copy keys: %w", err)
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}
