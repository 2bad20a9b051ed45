package store

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// setLockTimeout bounds each wait for a row's lock by $7 ms, in its own statement only: the setting ends with the
// transaction, so it also works behind a PgBouncer in transaction mode. It runs before the first row is locked. Waiting
// for the table happens earlier, while the statement is parsed, and keeps the session's lock_timeout.
const setLockTimeout = `(SELECT set_config('lock_timeout', $7, true)) IS NOT NULL`

// upsertBrieflySQL is upsertSQL with a lock_timeout of its own.
const upsertBrieflySQL = upsertSelect + `
WHERE ` + setLockTimeout + upsertConflict

// upsertFreeSQL writes those rows of a batch that nobody else holds locked, and returns the others: held ones, and ones
// that the guard kept out. free locks what it can and waits for nothing, so neither the order of the rows nor the plan
// matters. held are the rows that exist but are not free. The insert meets only rows that are locked already, or new ones:
// it waits only for a row that somebody else is inserting.
//
// It looks for each row three times and costs about twice as much as upsertSQL.
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
	// briefly bounds a wait for a lock in a statement that holds other rows locked. It is far below deadlock_timeout (1 s by
	// default), so such a statement gives its rows up before it makes anybody else's transaction the victim of a deadlock.
	briefly = 20 * time.Millisecond
	// inLine bounds the wait for one row in a statement that holds no other, twice as long as clients are expected to
	// hold rows locked.
	inLine = 100 * time.Millisecond
	// waitFor is how long a call goes on waiting for held rows, one after the other.
	waitFor = 250 * time.Millisecond
	// lockMemory is for how long after it met a lock a Store expects more of them, and locks only what is free at once: a
	// statement that runs into a lock has done the work before it in vain.
	lockMemory = time.Second
	// maxLockTimeouts bounds the search for rows that somebody else is inserting. Finding one in 1,000 takes 10.
	maxLockTimeouts = 32
)

// UpsertUnlocked is Upsert for a table in which others lock rows too. It writes the rows that nobody else holds locked, and
// returns the keys of the others in locked: those are not written, nothing is wrong with them, and trying them
// again a little later is all that they need. It never waits for a lock while it holds other rows for longer than 20 ms, so it
// holds nobody up, and takes part in no deadlock that lasts until Postgres looks for one.
//
// Rows whose locks are released within some 100 ms are normally not in locked: the call waits for held rows in the lock
// queue, one row at a time, for 350 ms in all.
//
// ahead is as for Upsert, but holds the rows that Postgres has in exactly the given state too where the call met a lock. On an
// error some rows may have been written, which does no harm (see Upsert). A lock on the whole table is an error (IsLocked).
func (s *Store) UpsertUnlocked(ctx context.Context, rows []counter.Row) (ahead []counter.Row, locked []counter.Key, err error) {
	if len(rows) == 0 {
		return nil, nil, nil
	}
	what := fmt.Sprintf("upsert %d unlocked rows", len(rows))
	batch, err := newBatch(rows)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", what, err)
	}
	u := unlocked{store: s, started: time.Now()}
	if err := s.guard(ctx, what, func(ctx context.Context) error { return u.run(ctx, batch) }); err != nil {
		return nil, nil, err
	}
	return u.ahead, u.locked, nil
}

// unlocked is one call of UpsertUnlocked.
type unlocked struct {
	store    *Store
	started  time.Time
	timeouts int // statements that ran into a lock while looking for rows that are being inserted
	passes   int // statements that got through

	ahead  []counter.Row
	locked []counter.Key
}

// run tries all rows in one cheap statement, unless locks are to be expected. Then it writes what is free, and waits for one
// of the held rows, by turns, until no row is left or the time is up.
func (u *unlocked) run(ctx context.Context, batch []counter.Row) error {
	if !u.store.locksExpected() {
		err := u.wait(ctx, batch, briefly)
		if !IsLocked(err) {
			return err
		}
		u.store.expectLocks()
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

// wait writes rows in one statement, waiting up to patience for each lock. It writes all of them or none.
func (u *unlocked) wait(ctx context.Context, rows []counter.Row, patience time.Duration) error {
	return again(ctx, func() error {
		ahead, err := u.store.upsertBy(ctx, rows, u.store.sql.upsertBriefly, append(upsertArgs(rows), milliseconds(patience))...)
		if err == nil {
			u.ahead = append(u.ahead, ahead...)
		}
		return err
	})
}

// giveUp leaves rows to the caller.
func (u *unlocked) giveUp(rows []counter.Row) {
	for i := range rows {
		u.locked = append(u.locked, rows[i].Key)
	}
}

// writeFree writes the rows that nobody else holds, and returns those that somebody does. Where it runs into a lock all the
// same, somebody is inserting one of the rows, which cannot be seen: it halves the rows until that one is alone.
func (u *unlocked) writeFree(ctx context.Context, rows []counter.Row) (held []counter.Row, err error) {
	err = again(ctx, func() error {
		held, err = u.pass(ctx, rows)
		return err
	})
	if !IsLocked(err) {
		return held, err
	}
	u.timeouts++
	switch {
	case u.passes == 0 && (u.timeouts > maxLockTimeouts || time.Since(u.started) > lockMemory):
		return nil, err // not one row is free: the table is locked
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

// pass is one statement of writeFree.
func (u *unlocked) pass(ctx context.Context, rows []counter.Row) (held []counter.Row, err error) {
	var left []struct {
		Key  counter.Key `db:"key"`
		Held bool        `db:"held"`
	}
	args := append(upsertArgs(rows), milliseconds(briefly))
	if err := u.store.db.SelectContext(ctx, &left, u.store.sql.upsertFree, args...); err != nil {
		return nil, err
	}
	u.passes++
	if len(left) == 0 {
		return nil, nil
	}
	isHeld := make(map[counter.Key]bool, len(left))
	for _, l := range left {
		isHeld[l.Key] = l.Held
	}
	var keptOut []counter.Row
	for _, row := range rows {
		switch h, isLeft := isHeld[row.Key]; {
		case h:
			held = append(held, row)
		case isLeft:
			keptOut = append(keptOut, row)
		}
	}
	return held, u.compare(ctx, keptOut)
}

// compare adds what Postgres has instead of rows that the guard kept out.
func (u *unlocked) compare(ctx context.Context, keptOut []counter.Row) error {
	if len(keptOut) == 0 {
		return nil
	}
	found, err := u.store.read(ctx, keyArray(keptOut, rowKey))
	if err != nil {
		return fmt.Errorf("read what postgres has instead: %w", err)
	}
	ahead, err := compare(keptOut, found, 0)
	u.ahead = append(u.ahead, ahead...)
	return err
}

// locksExpected reports that a call met a lock a short while ago.
func (s *Store) locksExpected() bool {
	last := s.metLock.Load()
	return last != 0 && time.Since(s.opened)-time.Duration(last) < lockMemory
}

// expectLocks notes that a call met a lock.
func (s *Store) expectLocks() { s.metLock.Store(int64(max(1, time.Since(s.opened)))) }

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
