package world

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/lib/pq"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/tasks"
)

// checkEvery is the interval between two checks of a condition.
const checkEvery = 10 * time.Millisecond

// StageOptions describe a stage.
type StageOptions struct {
	Name    string
	Version Version // the zero Version is Current
	// Large puts a stage of a million keys or more into a second Redis. In the first one, rewriting the append-only file before
	// each run would take seconds.
	Large bool
	// Replicated puts the stage into a third Redis, over TCP, that has one replica on the same machine.
	Replicated bool
	// Mapped maps the counters to a column of a table posts, which has a row for each.
	Mapped bool
	// History records all operations on the counters of Key.
	History bool
}

// Stage is a Redis database, a Postgres database, and the processes of one version that use them.
type Stage struct {
	RedisURL    string
	DatabaseURL string
	DB          *sql.DB
	Redis       redis.UniversalClient

	world     *World
	name      string
	server    *redisServer // nil with a topology
	program   string
	cache     *cache.Cache
	processes []*Process
	tables    []string // with the rows of counters
	settings  []string
	saved     *redis.Client // nil before the first Save
	savedAt   time.Time
}

// Stage creates a Postgres database with the version's tables, and takes an unused Redis database.
func (w *World) Stage(ctx context.Context, o StageOptions) (*Stage, error) {
	o.Version = cmp.Or(o.Version, Current)
	name := o.Name + "-" + string(o.Version)
	admin, err := sql.Open("postgres", w.Postgres.URL())
	if err != nil {
		return nil, fmt.Errorf("open postgres: %w", err)
	}
	defer admin.Close()
	if _, err := admin.ExecContext(ctx, "CREATE DATABASE "+pq.QuoteIdentifier(name)); err != nil {
		return nil, fmt.Errorf("create database: %w", err)
	}
	s := &Stage{
		world: w, name: name, program: w.programs[o.Version], DatabaseURL: w.Postgres.DatabaseURL(name),
		tables: []string{"counters"},
	}
	w.stages = append(w.stages, s)
	if s.DB, err = sql.Open("postgres", s.DatabaseURL); err != nil {
		return nil, fmt.Errorf("open postgres: %w", err)
	}
	// Keep no idle connections: a Postgres backend may report its statistics only when it ends.
	s.DB.SetMaxIdleConns(0)
	if err := s.connect(ctx, o); err != nil {
		return nil, err
	}
	if w.options.Restricted {
		if s.RedisURL, err = restrict(s.RedisURL); err != nil {
			return nil, err
		}
	}
	s.cache = cache.New(s.Redis, cache.Options{Shards: cmp.Or(w.options.Shards, cache.DefaultShards), CleanTTL: time.Hour})
	_, err = s.run(ctx, nil, "migrate")
	if o.History {
		s.recordAll()
	}
	if err == nil && o.Mapped {
		err = s.createMapped(ctx)
	}
	return s, err
}

// connect takes an unused database of a Redis. With a topology it takes the only one.
func (s *Stage) connect(ctx context.Context, o StageOptions) (err error) {
	if t := s.world.Topology; t != nil {
		s.RedisURL = t.URL()
		s.Redis, err = cache.Connect(s.RedisURL, topologyConns)
		return err
	}
	if s.server, err = s.world.redis(ctx, o); err != nil {
		return err
	}
	url, client, err := s.server.next()
	if err != nil {
		return err
	}
	s.RedisURL, s.Redis = url, client
	return nil
}

// topologyConns is the number of connections of the stage's client to each node.
const topologyConns = 8

const (
	// createMappedSQL creates the table of an application, with Postgres's defaults.
	createMappedSQL = `CREATE TABLE public.posts (
		name  text   PRIMARY KEY,
		title text   NOT NULL DEFAULT 'A title of a usual length, for a row of a usual size',
		likes bigint NOT NULL DEFAULT 0)`
	mappingText = `mappings: [{name: likes, key: "counter:{name:text}", table: posts, where: {name: "{name}"}, set: likes}]`
)

// createMapped creates the mapped table, and sets its mapping for all processes.
func (s *Stage) createMapped(ctx context.Context) error {
	path := filepath.Join(s.world.Dir, s.name+"-mappings.yaml")
	if err := os.WriteFile(path, []byte(mappingText), 0o600); err != nil {
		return fmt.Errorf("write the mapping: %w", err)
	}
	s.tables, s.settings = append(s.tables, "posts"), append(s.settings, "AFTERWRITE_MAPPINGS="+path)
	return s.execute(ctx, createMappedSQL)
}

// redis returns the Redis for the stage. The first large stage and the first replicated one start theirs.
func (w *World) redis(ctx context.Context, o StageOptions) (*redisServer, error) {
	var err error
	switch {
	case o.Replicated:
		if w.replicated == nil {
			w.replicated, err = w.startReplicated(ctx)
		}
		return w.replicated, err
	case o.Large:
		if w.large == nil {
			w.large, err = w.startRedis(ctx, "redis-large", w.options.Redis)
		}
		return w.large, err
	default:
		return w.small, nil
	}
}

// next returns an unused database.
func (r *redisServer) next() (url string, client *redis.Client, err error) {
	if r.used == databases {
		return "", nil, fmt.Errorf("all %d databases of redis are in use", databases)
	}
	url = r.DatabaseURL(r.used)
	options, err := redis.ParseURL(url)
	if err != nil {
		return "", nil, fmt.Errorf("parse the URL of redis: %w", err)
	}
	r.used++
	// redis-server has no maintenance notifications; requesting them logs an error.
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return url, redis.NewClient(options), nil
}

func (s *Stage) close() error {
	err := s.StopAll()
	if s.DB != nil {
		err = errors.Join(err, s.DB.Close())
	}
	if s.Redis != nil {
		err = errors.Join(err, s.Redis.Close())
	}
	if s.saved != nil {
		err = errors.Join(err, s.saved.Close())
	}
	return err
}

// RedisPID returns the process ID of the stage's Redis.
func (s *Stage) RedisPID() int { return s.server.Pid() }

// ReplicaPID returns the process ID of its replica; 0 if it has none.
func (s *Stage) ReplicaPID() int {
	if s.server == nil || s.server.replica == nil {
		return 0
	}
	return s.server.replica.Pid()
}

// Key returns the name of counter i: 20 bytes, the same names as in package load.
func Key(i int) string { return fmt.Sprintf("counter:%012d", i) }

// seedSQL inserts the rows of counters 0 to $1 - 1, each with value 0.
const seedSQL = `
INSERT INTO counters (key, value, version, updated_at)
SELECT 'counter:' || lpad(i::text, 12, '0'), 0, 0, now() FROM generate_series(0, $1::int - 1) AS i`

// seedMappedSQL inserts their rows of the mapped table.
const seedMappedSQL = `INSERT INTO posts (name) SELECT lpad(i::text, 12, '0') FROM generate_series(0, $1::int - 1) AS i`

// seeds holds the statements that fill the tables of a stage. Other tables begin empty.
var seeds = map[string]string{"counters": seedSQL, "posts": seedMappedSQL}

// Reset creates the initial state of a run: so many rows of value 0, vacuumed; an empty Redis database; a short append-only file;
// and a checkpoint just before. So no system pays for the leftovers of another, and all pay the same costs: full page writes after a
// checkpoint, and a rewrite of the append-only file at 64 MB.
func (s *Stage) Reset(ctx context.Context, rows int) error {
	if err := s.Redis.FlushDB(ctx).Err(); err != nil {
		return fmt.Errorf("empty redis: %w", err)
	}
	if err := s.execute(ctx, "TRUNCATE "+strings.Join(s.tables, ", ")); err != nil {
		return err
	}
	for _, table := range s.tables {
		seed, ok := seeds[table]
		if !ok {
			continue
		}
		if _, err := s.DB.ExecContext(ctx, seed, rows); err != nil {
			return fmt.Errorf("seed %d rows: %w", rows, err)
		}
	}
	return s.Settle(ctx)
}

// execute runs each statement in its own transaction.
func (s *Stage) execute(ctx context.Context, statements ...string) error {
	for _, statement := range statements {
		if _, err := s.DB.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// Settle makes the servers idle without changing their data: it vacuums, makes a checkpoint, and rewrites the append-only file.
func (s *Stage) Settle(ctx context.Context) error {
	if err := s.execute(ctx, "VACUUM "+strings.Join(s.tables, ", "), "CHECKPOINT"); err != nil {
		return err
	}
	if err := s.Redis.BgRewriteAOF(ctx).Err(); err != nil && !strings.Contains(err.Error(), "already in progress") {
		return fmt.Errorf("rewrite the append-only file: %w", err)
	}
	return Await(ctx, time.Minute, "the rewrite of the append-only file", func(ctx context.Context) (bool, error) {
		info, err := cache.ReadInfo(ctx, s.Redis, "persistence")
		return info.AOFKnown && !info.Rewriting, err
	})
}

// Sum returns the sum and the number of all counters in Postgres.
func (s *Stage) Sum(ctx context.Context) (sum, rows int64, err error) {
	const query = `SELECT coalesce(sum(value), 0)::bigint, count(*) FROM counters WHERE deleted_at IS NULL`
	if err := s.DB.QueryRowContext(ctx, query).Scan(&sum, &rows); err != nil {
		return 0, 0, fmt.Errorf("add up the counters: %w", err)
	}
	return sum, rows, nil
}

// SumMapped returns the sum of the mapped column.
func (s *Stage) SumMapped(ctx context.Context) (sum int64, err error) {
	if err := s.DB.QueryRowContext(ctx, "SELECT coalesce(sum(likes), 0)::bigint FROM posts").Scan(&sum); err != nil {
		return 0, fmt.Errorf("add up the mapped column: %w", err)
	}
	return sum, nil
}

// Archived counts the tasks that Asynq has archived after their last attempt.
func (s *Stage) Archived(ctx context.Context) (int64, error) {
	var sum int64
	for _, queue := range tasks.QueuesIn(s.Redis, "").Names() {
		n, err := s.Redis.ZCard(ctx, "asynq:{"+queue+"}:archived").Result()
		if err != nil {
			return 0, fmt.Errorf("count archived tasks: %w", err)
		}
		sum += n
	}
	return sum, nil
}

// Sleep blocks for d. If ctx is done first, it returns ctx's error.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Await blocks for at most bound until done returns true. It returns an error of done at once.
func Await(ctx context.Context, bound time.Duration, what string, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	ticker := time.NewTicker(checkEvery)
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
