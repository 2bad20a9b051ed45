package world

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lib/pq"
	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

const (
	// lookEvery is the time between two looks at what is waited for; it is how exact a drain time is.
	lookEvery = 10 * time.Millisecond
	// warmBatch is how many keys are brought into Redis at once.
	warmBatch = 1000
	shards    = cache.DefaultShards
	cleanTTL  = time.Hour
)

// Stage is a database of Redis and one of Postgres: the state that one kind of measurement goes on with.
type Stage struct {
	RedisURL    string
	DatabaseURL string
	DB          *sql.DB
	Redis       *redis.Client
	Cache       *cache.Cache

	world     *World
	processes []*Process
}

// Stage makes the database of that name in Postgres, with its tables, and uses database number n of Redis.
func (w *World) Stage(ctx context.Context, name string, n int) (*Stage, error) {
	admin, err := sql.Open("postgres", w.Postgres.URL())
	if err != nil {
		return nil, fmt.Errorf("open postgres: %w", err)
	}
	defer admin.Close()
	if _, err := admin.ExecContext(ctx, "CREATE DATABASE "+pq.QuoteIdentifier(name)); err != nil {
		return nil, fmt.Errorf("create database: %w", err)
	}
	s := &Stage{world: w, RedisURL: w.Redis.DatabaseURL(n), DatabaseURL: w.Postgres.DatabaseURL(name)}
	w.stages = append(w.stages, s)
	if _, err := store.Migrate(ctx, s.DatabaseURL); err != nil {
		return nil, err
	}
	if s.DB, err = sql.Open("postgres", s.DatabaseURL); err != nil {
		return nil, fmt.Errorf("open postgres: %w", err)
	}
	// No connection is kept: a server process of Postgres reports to the statistics when it ends.
	s.DB.SetMaxIdleConns(0)
	options, err := redis.ParseURL(s.RedisURL)
	if err != nil {
		return nil, fmt.Errorf("address of redis: %w", err)
	}
	s.Redis = redis.NewClient(options)
	s.Cache = cache.New(s.Redis, cache.Options{Shards: shards, CleanTTL: cleanTTL})
	return s, nil
}

func (s *Stage) close() error {
	err := s.StopAll()
	if s.DB != nil {
		err = errors.Join(err, s.DB.Close())
	}
	if s.Redis != nil {
		err = errors.Join(err, s.Redis.Close())
	}
	return err
}

// Key is the name of counter i: 20 bytes, as the load draws them.
func Key(i int) counter.Key { return counter.Key(fmt.Sprintf("counter:%012d", i)) }

// seedSQL makes the rows of the counters 0 to $1 - 1, each 0.
const seedSQL = `
INSERT INTO counters (key, value, version, updated_at)
SELECT 'counter:' || lpad(i::text, 12, '0'), 0, 0, now() FROM generate_series(0, $1::int - 1) AS i`

// Reset makes both databases what every system begins a run with: rows counters in Postgres, all 0, vacuumed; nothing in this
// database of Redis; a short append-only file; and a checkpoint just behind. So nobody pays for what another has
// left, and everybody for the same that comes: full pages in the log after a checkpoint, and a rewrite of the file at 64 MB.
func (s *Stage) Reset(ctx context.Context, rows int) error {
	if err := s.Redis.FlushDB(ctx).Err(); err != nil {
		return fmt.Errorf("empty redis: %w", err)
	}
	if _, err := s.DB.ExecContext(ctx, "TRUNCATE counters"); err != nil {
		return fmt.Errorf("empty postgres: %w", err)
	}
	if _, err := s.DB.ExecContext(ctx, seedSQL, rows); err != nil {
		return fmt.Errorf("seed %d rows: %w", rows, err)
	}
	return s.Settle(ctx)
}

// Settle brings the servers to rest without changing what they have: a vacuum, a checkpoint, and a short append-only file.
func (s *Stage) Settle(ctx context.Context) error {
	for _, statement := range []string{"VACUUM counters", "CHECKPOINT"} {
		if _, err := s.DB.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	if err := s.Redis.BgRewriteAOF(ctx).Err(); err != nil && !strings.Contains(err.Error(), "already in progress") {
		return fmt.Errorf("rewrite the append-only file: %w", err)
	}
	return s.await(ctx, time.Minute, "the append-only file to be rewritten", func(ctx context.Context) (bool, error) {
		info, err := s.Redis.Info(ctx, "persistence").Result()
		return strings.Contains(info, "aof_rewrite_in_progress:0") && strings.Contains(info, "aof_rewrite_scheduled:0"), err
	})
}

// noHints is for reads, which make nothing dirty.
type noHints struct{}

func (noHints) Offer(counter.Key, counter.Shard, int64) {}

// Warm reads the counters 0 to n - 1, so that Redis has them as clean entries: what the api does with a cold key.
func (s *Stage) Warm(ctx context.Context, n int) error {
	bases, err := store.Open(s.DatabaseURL, store.Options{MaxConns: 1})
	if err != nil {
		return err
	}
	defer func() { _ = bases.Close() }()
	writer := s.Cache.NewWriter(func() bool { return true })
	defer writer.Close()
	service := writepath.New(s.Cache, writer, bases, noHints{})
	defer service.StopWaiting()
	for from := 0; from < n; from += warmBatch {
		reads := make([]counter.Operation, min(warmBatch, n-from))
		for i := range reads {
			reads[i] = counter.Operation{Key: Key(from + i), Kind: counter.Get}
		}
		for _, result := range service.Do(ctx, reads, writepath.Options{}) {
			if result.Err != nil {
				return fmt.Errorf("warm: %w", result.Err)
			}
		}
	}
	return nil
}

// Sum is the sum of all counters in Postgres, and how many there are.
func (s *Stage) Sum(ctx context.Context) (sum, rows int64, err error) {
	const query = `SELECT coalesce(sum(value), 0)::bigint, count(*) FROM counters WHERE deleted_at IS NULL`
	if err := s.DB.QueryRowContext(ctx, query).Scan(&sum, &rows); err != nil {
		return 0, 0, fmt.Errorf("add up: %w", err)
	}
	return sum, rows, nil
}

// Dirty is how many keys Postgres does not have yet.
func (s *Stage) Dirty(ctx context.Context) (int64, error) { return s.Cache.DirtyCount(ctx) }

// Drained waits until no key is dirty.
func (s *Stage) Drained(ctx context.Context, bound time.Duration) error {
	return s.await(ctx, bound, "the drain", func(ctx context.Context) (bool, error) {
		dirty, err := s.Dirty(ctx)
		return dirty == 0, err
	})
}

// Await waits until done, for bound at most. An error of done ends it.
func (s *Stage) Await(ctx context.Context, bound time.Duration, what string, done func(context.Context) (bool, error)) error {
	return s.await(ctx, bound, what, done)
}

func (*Stage) await(ctx context.Context, bound time.Duration, what string, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		ok, err := done(ctx)
		if err == nil && ok {
			return nil
		}
		if err != nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-ticker.C:
		}
	}
}
