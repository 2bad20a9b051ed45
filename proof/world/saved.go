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
	// savedMax is how long a saved state may be used: its keys go on aging, and clean counters are evicted when they were idle for
	// AFTERWRITE_CLEAN_TTL, an hour.
	savedMax = 30 * time.Minute
)

// Save copies the rows and the keys in Redis, for Restore. No process of afterwrite may be running.
//
// Redis copies its keys itself, so that this does not depend on a version's layout.
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

// Saved reports whether there is a saved state that is recent enough to restore.
func (s *Stage) Saved() bool { return time.Since(s.savedAt) < savedMax }

// Restore brings both databases back to the saved state, and settles them as Reset does.
func (s *Stage) Restore(ctx context.Context) error {
	if err := copyKeys(ctx, s.saved, s.Redis); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if err := s.execute(ctx, "TRUNCATE counters", "INSERT INTO counters TABLE bench_saved"); err != nil {
		return err
	}
	return s.Settle(ctx)
}

// copyKeys makes to a copy of from, another database of the same Redis. Expiring keys keep their time.
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
