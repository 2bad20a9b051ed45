package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// setLockTimeout bounds each wait for a row lock to $7 ms, in this statement only: the setting ends with the transaction, so it works
// through a PgBouncer in transaction mode. It runs before the first row is locked. The lock on the table is taken earlier, while the
// statement is parsed, with the session's lock_timeout.
const setLockTimeout = `(SELECT set_config('lock_timeout', $7, true)) IS NOT NULL`

// upsertBrieflySQL is upsertSQL with a lock_timeout of its own.
const upsertBrieflySQL = upsertSelect + `
WHERE ` + setLockTimeout + upsertConflict

// upsertFreeSQL writes the rows that no other transaction locks. It returns the keys of the other rows: locked ones (held), and ones
// that the guard kept out.
//
// free locks existing rows without waiting, so neither their order nor the plan matters. held are the existing rows that it could not
// lock. The INSERT then has only rows that it has locked, and new rows, so it waits only for a row that another transaction is
// inserting.
//
// It reads each row three times, and costs about twice as much as upsertSQL.
const upsertFreeSQL = `
WITH batch AS MATERIALIZED (
	SELECT key, value, version, deleted, lineage, base
	FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::boolean[], $5::bigint[], $6::bigint[])
		AS batch (key, value, version, deleted, lineage, base)
	WHERE ` + setLockTimeout + `
),
free AS MATERIALIZED (
	SELECT key FROM {schema}.counters WHERE key = ANY (ARRAY(SELECT key FROM batch)) FOR NO KEY UPDATE SKIP LOCKED
),
held AS MATERIALIZED (
	SELECT key FROM {schema}.counters WHERE key = ANY (ARRAY(SELECT key FROM batch)) AND key NOT IN (SELECT key FROM free)
),
written AS (
	INSERT INTO {schema}.counters (key, value, version, deleted_at, updated_at, lineage, base)
	SELECT key, value, version, CASE WHEN deleted THEN now() END, now(), lineage, base
	FROM batch
	WHERE key NOT IN (SELECT key FROM held)` + upsertConflict + `
	RETURNING key
)
SELECT key, key IN (SELECT key FROM held) AS held FROM batch WHERE key NOT IN (SELECT key FROM written)`

const (
	// briefly bounds the wait for a lock in a statement that holds other row locks. It is far below deadlock_timeout (1 s by
	// default), so the statement fails before Postgres would cancel another transaction because of a deadlock.
	briefly = 20 * time.Millisecond
	// inLine bounds the wait for one row in a statement that holds no other row locks. Clients are expected to lock rows for half
	// of it at most.
	inLine = 100 * time.Millisecond
	// waitFor bounds the time in which a call begins to wait for held rows, one after the other.
	waitFor = 250 * time.Millisecond
	// lockMemory is how long after a lock a Store expects further locks and begins with writeFree: a statement that fails because
	// of a lock is rolled back, which wastes its work.
	lockMemory = time.Second
	// maxLockTimeouts bounds the search for rows that another transaction is inserting. Finding 1 in 1,000 takes 10 timeouts.
	maxLockTimeouts = 32
)

// Upserted is the result of UpsertUnlocked.
type Upserted struct {
	// Ahead are the rows that the guard kept, as for Upsert. A counter whose column changed before its first flush has a row of version 0
	// here, with the value of the column.
	Ahead []counter.Row
	// Locked are the keys whose rows, in counters or in a mapped table, another transaction locks.
	Locked []counter.Key
	// Refused are counters that their mapping does not permit.
	Refused []Refusal
	// Broken are the mappings whose tables cannot be written, for example because of the schema or a permission.
	Broken []Broken
	// Mapped counts the rows that were written to mapped tables.
	Mapped []MappedCount
}

// Refusal is a row that cannot be written, and why.
type Refusal struct {
	Row counter.Row
	Err error
}

// Broken is a mapping whose table cannot be written until an operator repairs it, and the keys that were not written because of it.
type Broken struct {
	Mapping string
	Keys    []counter.Key
	Err     error
}

// MappedCount counts what a call wrote for one mapping.
type MappedCount struct {
	Mapping string
	Rows    int // counters whose column was written
	Missing int // counters without a row in the table, which were written to counters only
}

// UpsertUnlocked is Upsert for tables whose rows other transactions lock, and writes the columns of mapped counters in the same
// transaction. It writes the unlocked rows, and returns the keys of the others in Locked. The caller should try those again a little
// later. While it holds row locks, it waits at most 20 ms for another, so it neither delays other transactions nor causes deadlocks that
// Postgres resolves.
//
// Rows that are unlocked within about 100 ms are usually written too: the call waits for held rows, one at a time, for 350 ms in
// total.
//
// If the call hit a lock, Ahead also has rows that equal the given ones. After an error some rows may be written, which is harmless (see
// Upsert). A lock on the whole table counters is an error (IsLocked).
func (s *Store) UpsertUnlocked(ctx context.Context, rows []counter.Row) (Upserted, error) {
	return s.upsertUnlocked(ctx, rows, nil)
}

func (s *Store) upsertUnlocked(ctx context.Context, rows []counter.Row, history History) (Upserted, error) {
	if len(rows) == 0 {
		return Upserted{}, nil
	}
	what := fmt.Sprintf("upsert %d unlocked rows", len(rows))
	batch, err := newBatch(rows)
	if err != nil {
		return Upserted{}, fmt.Errorf("%s: %w", what, err)
	}
	u := unlocked{store: s, started: time.Now(), history: history}
	if err := s.guard(ctx, what, func(ctx context.Context) error { return u.run(ctx, batch) }); err != nil {
		return Upserted{}, err
	}
	return u.Upserted, nil
}

// unlocked is one call of UpsertUnlocked.
type unlocked struct {
	Upserted

	store    *Store
	started  time.Time
	timeouts int // statements of writeFree that failed because of a lock
	passes   int // statements of writeFree that succeeded

	out   map[counter.Key]bool // rows that this call does not write, for the reasons in Upserted
	raced map[counter.Key]bool // rows whose column was not written, though their row exists

	history     History
	partitioned bool // this call has created the partitions of its records

	immediate bool // deferred constraints are checked by each statement, to find the mapping whose table raises an error
}

// run first tries all rows in one cheap statement, unless it expects locks. If that hits a lock, it alternates: it writes the free
// rows, and waits for one held row, until no row is left or the time is up.
func (u *unlocked) run(ctx context.Context, batch []counter.Row) error {
	if !u.store.locksExpected() {
		err := u.wait(ctx, batch, briefly)
		if !IsLocked(err) && !errors.Is(err, errPartly) {
			return err
		}
		if IsLocked(err) {
			u.store.expectLocks()
		}
	}
	for {
		held, err := u.writeFree(ctx, batch)
		if err != nil || len(held) == 0 {
			return err
		}
		u.store.expectLocks()
		if time.Since(u.started) > waitFor {
			u.giveUp(held)
			return nil
		}
		err = u.wait(ctx, held[:1], inLine)
		switch {
		case IsLocked(err):
			u.giveUp(held[:1])
		case err != nil:
			return err
		}
		batch = held[1:]
		if len(batch) == 0 {
			return nil
		}
	}
}

// errPartly means that the guard kept some rows of a statement, so it is not known which rows were written. Nothing was committed.
var errPartly = errors.New("the guard kept some of the rows")

// wait writes rows in one transaction and waits up to patience for each lock. It writes all rows or none, except those that it adds to
// u.out. It returns errPartly if it cannot tell which columns to write.
func (u *unlocked) wait(ctx context.Context, rows []counter.Row, patience time.Duration) error {
	return u.repeat(ctx, rows, func(tx querier, rows []counter.Row) (written []counter.Row, after func(), err error) {
		n, err := execute(ctx, tx, u.store.sql.upsertBriefly, append(upsertArgs(rows), milliseconds(patience))...)
		switch {
		case err != nil:
			return nil, nil, err
		case n == len(rows):
			return rows, func() {}, nil
		case n > 0 && tx != querier(u.store.db):
			return nil, nil, errPartly
		}
		ahead, err := u.store.instead(ctx, tx, rows, n)
		return nil, func() { u.Ahead = append(u.Ahead, ahead...) }, err
	})
}

// giveUp adds the remaining rows to Locked.
func (u *unlocked) giveUp(rows []counter.Row) {
	for _, row := range u.remaining(rows) {
		u.lock(row)
	}
}

// writeFree writes the rows that no other transaction locks, and returns the others. If it hits a lock nevertheless, another
// transaction is inserting one of the rows, and its row is not visible. Then writeFree halves the rows until that one is alone.
func (u *unlocked) writeFree(ctx context.Context, rows []counter.Row) (held []counter.Row, err error) {
	held, err = u.pass(ctx, rows)
	if !IsLocked(err) {
		return held, err
	}
	u.timeouts++
	none := u.passes == 0 && (u.timeouts > maxLockTimeouts || time.Since(u.started) > lockMemory)
	failed, ofMapping := errors.AsType[*MappingError](err)
	switch {
	case ofMapping && (none || u.timeouts > maxLockTimeouts): // a trigger waits, for each row
		rows = u.remaining(rows)
		u.takeOut(failed.Mapping, rows, u.lock)
		return u.writeFree(ctx, u.remaining(rows))
	case none:
		return nil, err // no statement succeeded, so the table is locked
	case len(rows) == 1 || u.timeouts > maxLockTimeouts:
		u.giveUp(rows)
		return nil, nil
	}
	held, err = u.writeFree(ctx, rows[:len(rows)/2])
	if err != nil {
		return nil, err
	}
	more, err := u.writeFree(ctx, rows[len(rows)/2:])
	return append(held, more...), err
}

// pass is one transaction of writeFree.
func (u *unlocked) pass(ctx context.Context, rows []counter.Row) (held []counter.Row, err error) {
	err = u.repeat(ctx, rows, func(tx querier, rows []counter.Row) (written []counter.Row, after func(), err error) {
		var locked, keptOut []counter.Row
		free, locked, err := u.lockColumns(ctx, tx, rows)
		if err != nil || len(free) == 0 {
			return nil, func() { held = locked }, err
		}
		written, more, keptOut, err := u.upsertFree(ctx, tx, free)
		if err != nil {
			return nil, nil, err
		}
		ahead, err := u.store.instead(ctx, tx, keptOut, 0)
		return written, func() {
			u.passes++
			held = slices.Concat(locked, more)
			u.Ahead = append(u.Ahead, ahead...)
		}, err
	})
	return held, err
}

// upsertFree writes the rows to counters that no other transaction locks there.
func (u *unlocked) upsertFree(ctx context.Context, tx querier, rows []counter.Row) (written, held, keptOut []counter.Row, err error) {
	var left []struct {
		Key  counter.Key `db:"key"`
		Held bool        `db:"held"`
	}
	if err := tx.SelectContext(ctx, &left, u.store.sql.upsertFree, append(upsertArgs(rows), milliseconds(briefly))...); err != nil {
		return nil, nil, nil, err
	}
	if len(left) == 0 {
		return rows, nil, nil, nil
	}
	isHeld := make(map[counter.Key]bool, len(left))
	for _, l := range left {
		isHeld[l.Key] = l.Held
	}
	for _, row := range rows {
		switch h, isLeft := isHeld[row.Key]; {
		case h:
			held = append(held, row)
		case isLeft:
			keptOut = append(keptOut, row) // step: kept out
		default:
			written = append(written, row)
		}
	}
	return written, held, keptOut, nil
}

// locksExpected reports whether a call hit a lock within lockMemory.
func (s *Store) locksExpected() bool {
	last := s.metLock.Load()
	return last != 0 && time.Since(s.opened)-time.Duration(last) < lockMemory
}

// expectLocks records that a call hit a lock.
func (s *Store) expectLocks() { s.metLock.Store(int64(max(1, time.Since(s.opened)))) }

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
