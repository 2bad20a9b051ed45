package store

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
)

const (
	// MaxBatch bounds the rows of one Upsert and the keys of one Read. 10,000 rows of the longest keys are 3 MB.
	MaxBatch = 10_000

	defaultMaxConns         = 10
	defaultStatementTimeout = 10 * time.Second

	// slack is how long a call waits past the statement timeout, so that it is the server that gives up first and can
	// say so.
	slack = 2 * time.Second
)

// Options are the settings of a Store. The zero value takes every default.
type Options struct {
	// Logger hears of every change between available and unavailable, once. Default: slog.Default.
	Logger *slog.Logger
	// MaxConns bounds the connections; a call past it waits for one, within its ctx. Default 10. It should be as many
	// as there are concurrent callers.
	MaxConns int
	// StatementTimeout bounds a statement on the server; waiting for a lock takes a tenth of it at most. A call gives up two
	// seconds later. Default 10 s, at least 1 ms.
	StatementTimeout time.Duration
	// Writes says that this process upserts, so that Ping finds out whether it can. Default: it reads only.
	Writes bool
	// Schema holds the tables. Default DefaultSchema.
	Schema string
	// OpenDB makes the pool of connections, to watch them. Default sql.OpenDB.
	OpenDB func(driver.Connector) *sql.DB
}

// Store is a pool of connections to one Postgres behind one circuit breaker. Its methods may be called concurrently.
type Store struct {
	db      *sqlx.DB
	breaker *breaker
	bound   time.Duration // of one call
	writes  bool
	schema  string
	sql     statements
	url     string

	opened  time.Time
	metLock atomic.Int64 // when UpsertUnlocked last met a lock, ns after opened; 0: never
}

// Open checks databaseURL, which is a postgres:// URL or lib/pq's key=value form, and returns a Store. It does not
// connect: that happens at the first call. The error says what is wrong with the URL and never holds its password.
func Open(databaseURL string, options Options) (*Store, error) {
	config, err := parseDSN(databaseURL)
	if err != nil {
		return nil, err
	}
	timeout := max(cmp.Or(options.StatementTimeout, defaultStatementTimeout), time.Millisecond)
	logger := cmp.Or(options.Logger, slog.Default())
	bound := timeout + slack
	schema := cmp.Or(options.Schema, DefaultSchema)

	open := options.OpenDB
	if open == nil {
		open = sql.OpenDB
	}
	db := open(newConnector(withTimeouts(config, timeout), bound, logger))
	conns := max(cmp.Or(options.MaxConns, defaultMaxConns), 1)
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns) // the default of 2 would make new connections all the time
	db.SetConnMaxIdleTime(5 * time.Minute)
	db.SetConnMaxLifetime(time.Hour) // follows a DNS name that moved, and frees what a backend's caches have gathered
	return &Store{
		db:      sqlx.NewDb(db, "postgres"),
		breaker: newBreaker(logger),
		bound:   bound,
		writes:  options.Writes,
		schema:  schema,
		sql:     newStatements(schema),
		url:     databaseURL,
		opened:  time.Now(),
	}, nil
}

// Close closes the connections. It waits for the statements that are under way.
func (s *Store) Close() error {
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close the connections to postgres: %w", err)
	}
	return nil
}

// Available is false while the breaker is open, when every call fails at once. It does not block.
func (s *Store) Available() bool { return s.breaker.available() }

// Up reports whether the last call reached a working Postgres, for a gauge; true before the first call. A Ping that gets
// through ends an outage, but for what it would not notice, like a full disk: then only when no call has met that for a minute. It
// does not block.
func (s *Store) Up() bool { return s.breaker.up() }

// Quiet returns for how long no call has said how Postgres is: a very long time before the first, 0 while one is under way. It
// does not block.
func (s *Store) Quiet() time.Duration { return s.breaker.quiet() }

// Ping asks Postgres for what this process needs of it: an upsert of no rows where Options.Writes, else a read of none. So it
// fails for a table, a permission or a writable server that is not there, too. A full disk it does not notice.
func (s *Store) Ping(ctx context.Context) error {
	return s.within(ctx, "ping postgres", s.breaker.probe, func(ctx context.Context) error {
		var err error
		if s.writes {
			_, err = s.upsert(ctx, nil)
		} else {
			_, err = s.read(ctx, keyArray(nil, rowKey))
		}
		return err
	})
}

// guard runs call within the Store's bound and behind the breaker, and wraps its error with what was being done.
func (s *Store) guard(ctx context.Context, what string, call func(ctx context.Context) error) error {
	return s.within(ctx, what, s.breaker.run, call)
}

func (s *Store) within(ctx context.Context, what string, run func(func() error) error, call func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.bound)
	defer cancel()
	err := run(func() error { return explain(ctx, call(ctx)) })
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// explain makes the end of ctx the error where it is the cause: else the caller would see how the connection was torn
// down ("i/o timeout", "bad connection", "canceling statement due to user request").
func explain(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil || errors.Is(err, ctx.Err()) {
		return err
	}
	if code := sqlState(err); code != "" && code != stateQueryCanceled {
		return err // Postgres did answer
	}
	return fmt.Errorf("%w (%w)", ctx.Err(), err)
}

// stateQueryCanceled is query_canceled, by a cancel request or by statement_timeout.
const stateQueryCanceled = "57014"
