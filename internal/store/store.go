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
	"github.com/lib/pq"

	"github.com/afterwrite/afterwrite/internal/mapping"
)

const (
	// MaxBatch bounds the rows of one Upsert and the keys of one Read. 10,000 rows of the longest keys are 3 MB.
	MaxBatch = 10_000

	defaultMaxConns         = 10
	defaultStatementTimeout = 10 * time.Second

	// slack is how much longer than the statement timeout a call waits, so that the server can report the timeout.
	slack = 2 * time.Second
)

// Options are the settings of a Store. The zero value selects all defaults.
type Options struct {
	// Logger logs each outage once when it begins and once when it ends. Default: slog.Default.
	Logger *slog.Logger
	// MaxConns bounds the connections. Further calls wait for one, within their ctx. Default 10. It should be the number of
	// concurrent callers.
	MaxConns int
	// StatementTimeout bounds a statement on the server, and a tenth of it bounds the wait for a lock. A call gives up two seconds
	// later. Default 10 s, at least 1 ms.
	StatementTimeout time.Duration
	// Writes makes Ping check that this process can upsert, not only that it can read.
	Writes bool
	// Schema has the tables. Default DefaultSchema.
	Schema string
	// Mappings says which counters also land in columns of the user's tables. Nil: none.
	Mappings *mapping.Mappings
	// Recording says that some counters have a history, so that the role needs rights on its tables.
	Recording bool
	// ReadURL, if set, is the address of a standby of the same database. Read, List and Top use it when it is as new as the primary
	// was when they began, and the primary otherwise.
	ReadURL string
	// OpenDB opens the connection pool; tracing wraps it. Default sql.OpenDB.
	OpenDB func(driver.Connector) *sql.DB
}

// Store is a connection pool for one Postgres with a circuit breaker. It is safe for concurrent use.
type Store struct {
	db      *sqlx.DB
	logins  *connector
	breaker *breaker
	replica *replica      // nil: none
	bound   time.Duration // of one call
	writes  bool
	schema  string
	sql     statements
	url     string

	recording bool

	mappings  *mapping.Mappings // nil: none
	mappedSQL map[*mapping.Mapping]*mappedSQL

	opened  time.Time
	metLock atomic.Int64 // when UpsertUnlocked last hit a lock, ns after opened; 0: never
}

// Open checks databaseURL, a postgres:// URL or lib/pq's key=value form, and returns a Store. With several hosts and
// target_session_attrs=read-write it follows a failover. It does not connect; the first call does. The error explains
// what is wrong with the URL, and never contains its password.
func Open(databaseURL string, options Options) (*Store, error) {
	config, err := parseDSN(databaseURL)
	if err != nil {
		return nil, err
	}
	timeout := max(cmp.Or(options.StatementTimeout, defaultStatementTimeout), time.Millisecond)
	logger := cmp.Or(options.Logger, slog.Default())
	bound := timeout + slack
	schema := cmp.Or(options.Schema, DefaultSchema)

	var replica *replica
	if options.ReadURL != "" {
		if replica, err = openReplica(options, timeout, bound, logger); err != nil {
			return nil, err
		}
	}
	logins := newConnector(withTimeouts(config, timeout), bound, logger)
	breaker := newBreaker(logger)
	breaker.opened = logins.retireAfter
	return &Store{
		db:      openPool(options, logins),
		logins:  logins,
		breaker: breaker,
		replica: replica,
		bound:   bound,
		writes:  options.Writes,
		schema:  schema,
		sql:     newStatements(schema),
		url:     databaseURL,
		opened:  time.Now(),

		recording: options.Recording,

		mappings: options.Mappings, mappedSQL: newMappedStatements(options.Mappings, qualified(schema, tableCounters)),
	}, nil
}

// openPool opens a pool of the sessions that logins opens.
func openPool(options Options, logins *connector) *sqlx.DB {
	open := options.OpenDB
	if open == nil {
		open = sql.OpenDB
	}
	db := open(logins)
	conns := max(cmp.Or(options.MaxConns, defaultMaxConns), 1)
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns) // with the default of 2, most calls would open a new connection
	db.SetConnMaxIdleTime(5 * time.Minute)
	db.SetConnMaxLifetime(time.Hour) // follows changes in DNS, and frees the caches of the backends
	return sqlx.NewDb(db, "postgres")
}

// Close closes the connections. It waits for running statements.
func (s *Store) Close() error {
	err := s.db.Close()
	if s.replica != nil {
		err = errors.Join(err, s.replica.db.Close())
	}
	if err != nil {
		return fmt.Errorf("close the connections to postgres: %w", err)
	}
	return nil
}

// Available reports whether the breaker is closed or half open. While it is open, every call fails at once.
func (s *Store) Available() bool { return s.breaker.available() }

// Up reports whether the last call reached a working Postgres, for a gauge. It is true before the first call.
//
// A successful Ping ends an outage. But if Ping cannot detect the cause of the outage, such as a full disk, it ends the outage only
// after a minute without another such failure.
func (s *Store) Up() bool { return s.breaker.up() }

// Quiet returns the time since a call last showed whether Postgres works. It is 0 while a call is in progress, and very long before
// the first call.
func (s *Store) Quiet() time.Duration { return s.breaker.quiet() }

// Ping upserts no rows if Options.Writes is set, and reads no rows otherwise. So it also fails if a table or a permission is missing
// or the server is read-only. It does not detect a full disk.
func (s *Store) Ping(ctx context.Context) error {
	return s.within(ctx, "ping postgres", s.breaker.probe, func(ctx context.Context) error {
		var err error
		if s.writes {
			_, err = s.upsert(ctx, nil)
		} else {
			_, err = s.read(ctx, s.db, keyArray(nil, rowKey))
		}
		return err
	})
}

// Info describes a Postgres server.
type Info struct {
	Version        string    `db:"version"`         // "15.8 (Debian 15.8-0+deb12u1)"
	VersionNumber  int       `db:"version_number"`  // 150008
	Now            time.Time `db:"now"`             // the server's clock, to the microsecond
	InRecovery     bool      `db:"in_recovery"`     // the server is a standby
	ReadOnly       bool      `db:"read_only"`       // the server refuses writes
	MaxConnections int       `db:"max_connections"` // for all clients together

	Address string `db:"-"` // which the last login reached: host:port, or a unix socket
	AnyHost bool   `db:"-"` // the URL has several hosts, and a session may be with one that accepts no writes
}

// infoSQL uses clock_timestamp(), the time of the call; now() would be the start of the transaction.
const infoSQL = `
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::int AS version_number,
       clock_timestamp() AS now,
       pg_is_in_recovery() AS in_recovery,
       current_setting('transaction_read_only')::boolean AS read_only,
       current_setting('max_connections')::int AS max_connections`

// Info returns facts about the server.
func (s *Store) Info(ctx context.Context) (Info, error) {
	var info Info
	err := s.guard(ctx, "read the settings of postgres", func(ctx context.Context) error {
		return s.db.GetContext(ctx, &info, infoSQL)
	})
	info.Address = s.logins.address()
	attrs := s.logins.config.TargetSessionAttrs
	info.AnyHost = len(s.logins.config.Multi) > 0 && attrs != pq.TargetSessionAttrsReadWrite && attrs != pq.TargetSessionAttrsPrimary
	return info, err
}

// guard runs call within the Store's time limit and behind the breaker, and prefixes its error with what.
func (s *Store) guard(ctx context.Context, what string, call func(ctx context.Context) error) error {
	return s.within(ctx, what, s.breaker.run, call)
}

func (s *Store) within(ctx context.Context, what string, run func(func() error) error, call func(ctx context.Context) error) error {
	caller, generation := ctx, s.logins.generation.Load()
	ctx, cancel := context.WithTimeout(ctx, s.bound)
	defer cancel()
	err := run(func() error { return explain(ctx, call(ctx)) })
	if err != nil {
		if ctx.Err() != nil && caller.Err() == nil && isGone(err) {
			s.logins.retire(generation) // not even statement_timeout ended the call: its server does not answer
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// explain returns ctx's error if err is only a consequence of it. Otherwise the caller would see errors such as "i/o timeout", "bad
// connection" or "canceling statement due to user request".
func explain(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil || errors.Is(err, ctx.Err()) {
		return err
	}
	if code := sqlState(err); code != "" && code != stateQueryCanceled {
		return err // an answer of Postgres
	}
	return fmt.Errorf("%w (%w)", ctx.Err(), err)
}

// stateQueryCanceled is the SQLSTATE query_canceled, caused by a cancel request or by statement_timeout.
const stateQueryCanceled = "57014"
