package world

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// copyBatch is the number of keys copied in one round trip.
	copyBatch = 1000
	// savedMax is the maximum age of a saved state. Its keys keep aging, and afterwrite evicts clean counters that were idle for
	// AFTERWRITE_CLEAN_TTL, an hour.
	savedMax = 30 * time.Minute
)

// Save copies the rows and the Redis keys, for Restore. No process of afterwrite may be running. Redis copies the keys itself, so
// Save works for every version's key layout.
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
	for _, table := range s.tables {
		if err := s.execute(ctx, "DROP TABLE IF EXISTS saved_"+table, "CREATE TABLE saved_"+table+" AS TABLE "+table); err != nil {
			return err
		}
	}
	return nil
}

// Saved reports whether there is a saved state younger than savedMax.
func (s *Stage) Saved() bool { return time.Since(s.savedAt) < savedMax }

// Restore returns both databases to the saved state, and settles the servers as Reset does.
func (s *Stage) Restore(ctx context.Context) error {
	if err := copyKeys(ctx, s.saved, s.Redis); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	for _, table := range s.tables {
		if err := s.execute(ctx, "TRUNCATE "+table, "INSERT INTO "+table+" TABLE saved_"+table); err != nil {
			return err
		}
	}
	return s.Settle(ctx)
}

// copyKeys replaces the content of database to by a copy of database from, in the same Redis. Keys keep their expiry.
func copyKeys(ctx context.Context, from, to redis.UniversalClient) error {
	database := 0
	if single, ok := to.(*redis.Client); ok {
		database = single.Options().DB
	}
	if err := to.FlushDB(ctx).Err(); err != nil {
		return fmt.Errorf("empty redis: %w", err)
	}
	for cursor := uint64(0); ; {
		keys, next, err := from.Scan(ctx, cursor, "", copyBatch).Result()
		if err != nil {
			return fmt.Errorf("read the keys: %w", err)
		}
		_, err = from.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for _, key := range keys { // SCAN may return a key twice
				pipe.Copy(ctx, key, key, database, true)
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
