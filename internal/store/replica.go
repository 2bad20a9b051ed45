package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
)

// replica is a hot standby that serves reads, if it is at least as new as the primary was when the read began. So a row from it is what the
// primary would have returned, and its lag cannot bring back an old base (docs/decisions/0033-reads-from-a-standby.md).
type replica struct {
	db      *sqlx.DB
	logins  *connector
	breaker *breaker
	served  atomic.Int64 // reads
}

const (
	// maxCatchUp bounds the wait for a standby to replay what the primary had written. A standby in the same region is some ms behind.
	maxCatchUp = 25 * time.Millisecond
	// catchUpEvery is the first pause between two questions; each further one is twice as long.
	catchUpEvery = 2 * time.Millisecond
)

// errLags is the failure of a read from a standby that is too far behind.
var errLags = fmt.Errorf("the standby is more than %s behind the primary", maxCatchUp)

// position is a point in the WAL of a primary.
type position struct {
	LSN      string `db:"lsn"`
	System   string `db:"system"`
	Timeline int64  `db:"timeline"`
	Database string `db:"database"`
}

// positionSQL returns the end of what the primary has written. The insert position, unlike the flushed one, includes commits with
// synchronous_commit=off. A WAL file's name begins with the timeline in hexadecimal digits.
const positionSQL = `
SELECT pg_catalog.pg_current_wal_insert_lsn()::text AS lsn,
       (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) AS system,
       ('x' || left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 8))::bit(32)::bigint AS timeline,
       pg_catalog.current_database()::text AS database`

// standbySQL compares a server with the primary's position, $1 to $4. The timeline of the last restartpoint may be older than the
// standby's; then the primary serves its reads for some minutes after a failover. LSNs of two timelines cannot be compared.
const standbySQL = `
SELECT pg_catalog.pg_is_in_recovery() AS standby,
       (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) = $2::text AS same_system,
       pg_catalog.current_database()::text = $4::text AS same_database,
       (SELECT timeline_id::bigint FROM pg_catalog.pg_control_checkpoint()) = $3::bigint AS same_timeline,
       coalesce(pg_catalog.pg_last_wal_replay_lsn() - $1::pg_lsn, 0)::bigint AS ahead,
       pg_catalog.pg_last_wal_replay_lsn() IS NOT NULL AS replays`

// ReplicaInfo describes the server of Options.ReadURL.
type ReplicaInfo struct {
	Configured   bool   `db:"-"`             // Options.ReadURL is set
	Address      string `db:"-"`             // host:port, or a unix socket
	Standby      bool   `db:"standby"`       // it is a hot standby
	SameSystem   bool   `db:"same_system"`   // it is a copy of the primary
	SameDatabase bool   `db:"same_database"` // the URLs have the same database
	SameTimeline bool   `db:"same_timeline"` // it has replayed a checkpoint since the last failover
	Replays      bool   `db:"replays"`       // it replays WAL
	Ahead        int64  `db:"ahead"`         // bytes of WAL that it has replayed beyond the primary's position; negative: it is behind
}

// unfit returns why the server cannot serve any read; nil if it can, once it has caught up.
func (i ReplicaInfo) unfit() error {
	switch {
	case !i.Standby, !i.Replays:
		return errors.New("the server is not a streaming standby")
	case !i.SameSystem:
		return errors.New("the server is not a standby of the primary in DATABASE_URL")
	case !i.SameDatabase:
		return errors.New("the URL has another database than DATABASE_URL")
	case !i.SameTimeline:
		return errors.New("the standby has not replayed a checkpoint since the last failover")
	}
	return nil
}

func openReplica(options Options, timeout, bound time.Duration, logger *slog.Logger) (*replica, error) {
	config, err := parseDSN(options.ReadURL)
	if err != nil {
		return nil, fmt.Errorf("the address for reads: %w", err)
	}
	r := &replica{logins: newConnector(withTimeouts(config, timeout), bound, logger), breaker: newBreaker(logger)}
	r.breaker.subject, r.breaker.meanwhile = "the standby for reads", "the primary serves them"
	r.breaker.opened = func(err error) {
		if !errors.Is(err, errLags) {
			r.logins.retireAfter(err)
		}
	}
	r.db = openPool(options, r.logins)
	return r, nil
}

// anywhere runs a read on the standby if that is new enough, and otherwise on the primary. read may run twice.
func (s *Store) anywhere(ctx context.Context, what string, read func(ctx context.Context, q querier) error) error {
	if s.onStandby(ctx, read) {
		return nil
	}
	return s.guard(ctx, what, func(ctx context.Context) error { return read(ctx, s.db) })
}

// onStandby runs a read on the standby, and reports whether that succeeded. It takes at most half of the time that is left, so that the
// primary can be asked after it. It asks the primary only for its position in the WAL.
func (s *Store) onStandby(ctx context.Context, read func(ctx context.Context, q querier) error) bool {
	r := s.replica
	if r == nil || !s.Available() || !r.breaker.available() {
		return false
	}
	share := s.bound / 2
	if deadline, ok := ctx.Deadline(); ok {
		share = min(share, time.Until(deadline)/2)
	}
	half, cancel := context.WithTimeout(ctx, share)
	defer cancel()
	err := s.positioned(half, func(p position) error {
		// The primary's part is outside of the breaker: its failure says nothing about the standby.
		return r.breaker.run(func() error { return explain(half, r.read(half, p, read)) })
	})
	if err == nil {
		r.served.Add(1)
	}
	return err == nil
}

// StandbyReads returns the number of reads that the standby of Options.ReadURL has served.
func (s *Store) StandbyReads() int64 {
	if s.replica == nil {
		return 0
	}
	return s.replica.served.Load()
}

// positioned calls use with the primary's position.
func (s *Store) positioned(ctx context.Context, use func(p position) error) error {
	var p position
	if err := s.db.GetContext(ctx, &p, positionSQL); err != nil {
		return fmt.Errorf("read the primary's position: %w", err)
	}
	return use(p)
}

// read runs a read in a session that has replayed p. The transaction keeps the session, through a pooler too. Its isolation level gives
// the read a snapshot of its own, from after the comparison: within one statement, the snapshot would be from before it.
func (r *replica) read(ctx context.Context, p position, read func(ctx context.Context, q querier) error) error {
	tx, err := r.db.BeginTxx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted, ReadOnly: true})
	if err != nil {
		return fmt.Errorf("ask the standby: %w", err)
	}
	defer func() { _ = tx.Rollback() }()         // it has changed nothing
	if err := caughtUp(ctx, tx, p); err != nil { // step: caught up
		return err
	}
	return read(ctx, tx)
}

// caughtUp blocks until the standby has replayed p, at most for maxCatchUp.
func caughtUp(ctx context.Context, q querier, p position) error {
	began := time.Now()
	for pause := catchUpEvery; ; pause *= 2 {
		info, err := compareWith(ctx, q, p)
		switch {
		case err != nil:
			return err
		case info.unfit() != nil:
			return info.unfit()
		case info.Ahead >= 0:
			return nil
		case time.Since(began)+pause > maxCatchUp, !sleep(ctx, pause):
			return errLags
		}
	}
}

func compareWith(ctx context.Context, q querier, p position) (info ReplicaInfo, err error) {
	if err = q.GetContext(ctx, &info, standbySQL, p.LSN, p.System, p.Timeline, p.Database); err != nil {
		err = fmt.Errorf("compare the standby with the primary: %w", err)
	}
	return info, err
}

// Replica compares the server of Options.ReadURL with the primary. It ignores the breakers, and blocks at most until ctx is done, or
// for Options.StatementTimeout plus two seconds.
func (s *Store) Replica(ctx context.Context) (ReplicaInfo, error) {
	r := s.replica
	if r == nil {
		return ReplicaInfo{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.bound)
	defer cancel()
	var info ReplicaInfo
	err := explain(ctx, s.positioned(ctx, func(p position) (err error) {
		info, err = compareWith(ctx, r.db, p)
		return err
	}))
	info.Configured, info.Address = true, r.logins.address()
	return info, err
}

// Unfit returns why the server cannot serve reads; "" if it can, once it has caught up.
func (i ReplicaInfo) Unfit() string {
	if err := i.unfit(); err != nil {
		return err.Error()
	}
	return ""
}
