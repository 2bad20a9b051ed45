package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/mapping"
)

var (
	// ErrNoRow is returned, wrapped, if the user's table has no row for a counter whose mapping has missing: dead.
	ErrNoRow = errors.New("the table has no row for this counter: insert it, and redrive the counter")

	// errRaced means that another transaction inserted or changed a row between two statements. The next attempt sees its row.
	errRaced = errors.New("another transaction has changed a row meanwhile")

	// errRest means that nothing was committed, because the call does not write some of the rows: they are in u.out now.
	errRest = errors.New("write the other rows")
)

// writeCounters writes rows to counters, in a transaction if some of them have columns or records. It returns the rows that it has
// written, and what to do once they are committed.
type writeCounters func(q querier, rows []counter.Row) (written []counter.Row, after func(), err error)

// repeat writes rows and their columns, without those of u.out. Each repetition writes fewer rows, or comes after a deadlock or another
// conflict, which are tried again a few times.
func (u *unlocked) repeat(ctx context.Context, rows []counter.Row, write writeCounters) error {
	for {
		if rows = u.remaining(rows); len(rows) == 0 {
			return nil
		}
		err := again(ctx, func() error {
			if len(u.store.mapped(rows)) > 0 || u.hasRecords(rows) {
				return u.both(ctx, rows, write)
			}
			_, after, err := write(u.store.db, rows)
			if err == nil {
				after()
			}
			return err
		})
		if isUnpartitioned(err) && !u.partitioned {
			if err := u.store.createPartitions(ctx, u.days(rows)); err != nil {
				return err // and not the refusal: nothing is wrong with the rows
			}
			u.partitioned = true
			continue
		}
		if !errors.Is(err, errRest) {
			return err
		}
	}
}

// both writes rows to counters, their columns and their records in one transaction: a reader sees all or nothing.
func (u *unlocked) both(ctx context.Context, rows []counter.Row, write writeCounters) error {
	tx, err := u.store.db.BeginTxx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	if u.immediate {
		if _, err := tx.ExecContext(ctx, "SET CONSTRAINTS ALL IMMEDIATE"); err != nil {
			return err
		}
	}
	had, err := u.existing(ctx, tx, rows)
	if err != nil {
		return err
	}
	written, after, err := write(tx, rows) // step: one transaction
	if err != nil {
		return u.breaks(err, rows)
	}
	if written, err = u.starting(ctx, tx, written, had); err != nil {
		return err
	}
	parts := u.store.mapped(written)
	counts, err := u.writeColumns(ctx, tx, parts, rows)
	if err == nil {
		err = u.appendRecords(ctx, tx, written) // step: only written
	}
	if err == nil {
		err = u.atCommit(tx.Commit(), parts, rows)
	}
	if err != nil {
		return tooSlow(ctx, err)
	}
	after()
	u.Mapped = append(u.Mapped, counts...)
	return nil
}

// writeColumns writes the columns of parts.
func (u *unlocked) writeColumns(ctx context.Context, tx querier, parts []*mappedRows, rows []counter.Row) ([]MappedCount, error) {
	var counts []MappedCount
	out := len(u.out)
	for _, part := range parts {
		count, err := u.writeColumn(ctx, tx, part)
		switch {
		case Classify(err) == Contended && len(u.out) > out:
			return nil, errRest // the rows that are out now must not be judged twice
		case err != nil:
			return nil, u.breaks(part.failed(err), rows)
		}
		counts = append(counts, count)
	}
	if len(u.out) > out {
		return nil, errRest
	}
	return counts, nil
}

// atCommit returns what to do about the error of a COMMIT. Deferred constraints and triggers are checked there, so nothing says which row
// or mapping they concern. A refusal needs no more: the caller halves the batch. Otherwise the next attempt has the statements fail.
func (u *unlocked) atCommit(err error, parts []*mappedRows, rows []counter.Row) error {
	switch {
	case sqlState(err) == "":
		return err
	case len(parts) == 1:
		return u.breaks(parts[0].failed(err), rows)
	case !u.immediate && (isBroken(err) || IsLocked(err)):
		u.immediate = true
		return errRest
	case concernsRow(err):
		return fmt.Errorf("%w: %w", ErrNotStored, err)
	}
	return err
}

// tooSlow marks the error of a transaction that ran out of time: with fewer rows it may succeed.
func tooSlow(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", errTooSlow, err)
	}
	return err
}

// breaks takes a mapping's rows out if err says that its table cannot be written: the other rows need not wait until an operator has
// repaired it.
func (u *unlocked) breaks(err error, rows []counter.Row) error {
	failed, ok := errors.AsType[*MappingError](err)
	if !ok || !isBroken(err) {
		return err
	}
	broken := Broken{Mapping: failed.Mapping, Err: failed}
	u.takeOut(failed.Mapping, rows, func(row counter.Row) { broken.Keys = append(broken.Keys, row.Key) })
	u.Broken = append(u.Broken, broken)
	return errRest
}

// takeOut adds the rows of a mapping to u.out.
func (u *unlocked) takeOut(name string, rows []counter.Row, each func(counter.Row)) {
	for _, part := range u.store.mapped(rows) {
		if part.Name == name {
			for _, row := range part.rows {
				u.leave(row.Key)
				each(row.Row)
			}
		}
	}
}

// remaining returns the rows that are not out.
func (u *unlocked) remaining(rows []counter.Row) []counter.Row {
	if len(u.out) == 0 {
		return rows
	}
	return slices.DeleteFunc(slices.Clone(rows), func(r counter.Row) bool { return u.out[r.Key] })
}

// lock adds a row to Locked.
func (u *unlocked) lock(row counter.Row) { u.Locked = append(u.Locked, row.Key) }

// leave adds a key to u.out.
func (u *unlocked) leave(key counter.Key) {
	if u.out == nil {
		u.out = make(map[counter.Key]bool)
	}
	u.out[key] = true
}

// refuse takes a row out because its mapping does not permit it.
func (u *unlocked) refuse(m *mapping.Mapping, row counter.Row, err error) {
	u.leave(row.Key)
	u.Refused = append(u.Refused, Refusal{Row: row, Err: &MappingError{Mapping: m.Name, Err: err}})
}

// writeColumn writes one column. Rows that must not be committed are in u.out afterwards.
func (u *unlocked) writeColumn(ctx context.Context, tx querier, part *mappedRows) (MappedCount, error) {
	count := MappedCount{Mapping: part.Name}
	args := part.args(part.rows)
	if slices.ContainsFunc(part.rows, func(r mappedRow) bool { return first(&r.Row) }) {
		return u.judge(ctx, tx, part, args)
	}
	written, err := execute(ctx, tx, part.sql.update, args...)
	if err != nil {
		return count, err
	}
	count.Rows = written
	if written == len(part.rows) {
		return count, nil
	}
	var absent []int
	if err := tx.SelectContext(ctx, &absent, part.sql.absent, args...); err != nil {
		return count, err
	}
	if written+len(absent) != len(part.rows) {
		return u.judge(ctx, tx, part, args)
	}
	missing := make([]mappedRow, len(absent))
	for i, n := range absent {
		missing[i] = part.rows[n-1]
	}
	return u.writeMissing(ctx, tx, part, missing, count)
}

// judge writes one column, and says for each row why its column was not written.
func (u *unlocked) judge(ctx context.Context, tx querier, part *mappedRows, args []any) (MappedCount, error) {
	count := MappedCount{Mapping: part.Name}
	var left []struct {
		N     int   `db:"n"`
		Found bool  `db:"found"`
		Value int64 `db:"value"`
	}
	if err := tx.SelectContext(ctx, &left, part.sql.judge, args...); err != nil {
		return count, err
	}
	var missing []mappedRow
	raced := false
	for _, l := range left {
		row := part.rows[l.N-1]
		switch {
		case !l.Found:
			missing = append(missing, row)
		case first(&row.Row) && l.Value != row.Start:
			u.leave(row.Key)
			u.Ahead = append(u.Ahead, counter.Row{Key: row.Key, Value: l.Value})
		default:
			raced = u.race(part.Mapping, row.Row) || raced
		}
	}
	count.Rows = len(part.rows) - len(left)
	if raced {
		return count, errRaced
	}
	return u.writeMissing(ctx, tx, part, missing, count)
}

// race records that a row exists whose column was not written. That is a coincidence once, and a trigger or a rule if it happens again:
// then the row is refused.
func (u *unlocked) race(m *mapping.Mapping, row counter.Row) (first bool) {
	if u.raced[row.Key] {
		u.refuse(m, row, fmt.Errorf("%w: a trigger or a rule keeps %s from being written", ErrNotStored, m.ColumnName()))
		return false
	}
	if u.raced == nil {
		u.raced = make(map[counter.Key]bool)
	}
	u.raced[row.Key] = true
	return true
}

// writeMissing does what the mapping says about counters without a row in its table. A tombstone needs none.
func (u *unlocked) writeMissing(
	ctx context.Context, tx querier, part *mappedRows, missing []mappedRow, count MappedCount,
) (MappedCount, error) {
	missing = slices.DeleteFunc(missing, func(r mappedRow) bool { return r.Deleted })
	switch {
	case len(missing) == 0:
	case part.Missing == mapping.Dead:
		for _, row := range missing {
			u.refuse(part.Mapping, row.Row, fmt.Errorf("%w: %s", ErrNoRow, part.Row(row.texts)))
		}
	case part.Missing == mapping.Insert:
		inserted, err := execute(ctx, tx, part.sql.insert, part.args(missing)...)
		switch {
		case err != nil:
			return count, err
		case inserted < len(missing):
			return count, u.notInserted(part, missing)
		}
		count.Rows += inserted
	default:
		count.Missing = len(missing)
	}
	return count, nil
}

// notInserted returns the error for rows of which some were not inserted: another transaction has inserted them, or a trigger or a rule
// does not permit it. Then the caller halves the batch until that row is alone.
func (u *unlocked) notInserted(part *mappedRows, missing []mappedRow) error {
	if slices.ContainsFunc(missing, func(r mappedRow) bool { return u.raced[r.Key] }) {
		table := qualified(part.Schema, part.Table)
		return fmt.Errorf("%w: a trigger or a rule keeps a row from being inserted into %s", ErrNotStored, table)
	}
	for _, row := range missing {
		u.race(part.Mapping, row.Row)
	}
	return errRaced
}

// lockColumns locks the rows of mapped tables, without waiting, and separates the rows that another transaction locks there. If it locks a
// whole table, all rows of the mapping are locked.
func (u *unlocked) lockColumns(ctx context.Context, tx querier, rows []counter.Row) (free, locked []counter.Row, err error) {
	held := make(map[counter.Key]bool)
	parts := u.store.mapped(rows)
	if len(parts) > 0 { // before a statement waits for a table
		if _, err := tx.ExecContext(ctx, "SELECT set_config('lock_timeout', $1, true)", milliseconds(briefly)); err != nil {
			return nil, nil, err
		}
	}
	for _, part := range parts {
		var ns []int
		err := tx.SelectContext(ctx, &ns, part.sql.held, part.args(part.rows)...)
		switch {
		case IsLocked(err):
			for _, other := range parts {
				if other.Schema == part.Schema && other.Table == part.Table {
					u.takeOut(other.Name, rows, u.lock)
				}
			}
			return nil, nil, errRest
		case err != nil:
			return nil, nil, part.failed(err)
		}
		for _, n := range ns {
			held[part.rows[n-1].Key] = true
		}
	}
	for _, row := range rows {
		if held[row.Key] {
			locked = append(locked, row)
		} else {
			free = append(free, row)
		}
	}
	return free, locked, nil
}
