package world

import (
	"context"
	"database/sql"
	"fmt"
)

// Record is a row of the table operations.
type Record struct {
	Version   int64
	Lineage   int64
	Operation string // increment, set, delete or discard
	Amount    sql.NullInt64
	Value     sql.NullInt64
	Request   string
}

// RecordClass says what is wrong with the records of a counter.
type RecordClass string

// The classes.
const (
	RecordGap     RecordClass = "gap"     // a version has no record
	RecordTwice   RecordClass = "twice"   // a version has two records
	RecordWrong   RecordClass = "wrong"   // a record contradicts the one before it
	RecordRow     RecordClass = "row"     // the last record contradicts the row
	RecordMissing RecordClass = "missing" // an acknowledged write has no record
	RecordSurplus RecordClass = "surplus" // a record belongs to no write that may be applied
)

// RecordProblem is what is wrong with the records of a counter. The zero value means nothing.
type RecordProblem struct {
	Class  RecordClass
	Detail string
}

// Problemf returns a problem.
func (c RecordClass) Problemf(format string, args ...any) RecordProblem {
	return RecordProblem{Class: c, Detail: fmt.Sprintf(format, args...)}
}

// State is the state of a counter in the table counters, or after a record.
type State struct {
	Value   int64 // 0 of a deleted counter
	Version int64
	Lineage int64
	Deleted bool
	Unknown bool // the value is not known: the replay begins after this state
}

// Replay follows records in their order from a state, and compares the result with the row of their counter. It requires that each version
// has one record, that each value is what the operation makes of the value before, that no later version has an older lineage, and that
// the last record leads to the row. The row may have a newer lineage: a counter of which Redis has lost nothing but flushed writes is
// written again, as it is.
func Replay(from State, records []Record, row State) RecordProblem {
	for _, r := range records {
		if problem := from.apply(r); problem != (RecordProblem{}) {
			return problem
		}
	}
	switch {
	case from.Version < row.Version:
		return RecordGap.Problemf("the row has version %d, and the last record has %d", row.Version, from.Version)
	case from.Version > row.Version:
		return RecordRow.Problemf("the row has version %d, and a record has %d", row.Version, from.Version)
	case from.Lineage > row.Lineage:
		return RecordRow.Problemf("the row has lineage %d, and the last record has %d", row.Lineage, from.Lineage)
	case from.Deleted != row.Deleted || !from.Unknown && from.Value != row.Value:
		return RecordRow.Problemf("the row has value %d, deleted: %t; the last record leads to %d, deleted: %t",
			row.Value, row.Deleted, from.Value, from.Deleted)
	}
	return RecordProblem{}
}

// apply changes the state as the record says, and returns what is wrong with the record.
func (s *State) apply(r Record) RecordProblem {
	switch {
	case r.Version <= s.Version:
		return RecordTwice.Problemf("version %d has a record after version %d", r.Version, s.Version)
	case r.Version > s.Version+1:
		return RecordGap.Problemf("version %d has a record after version %d", r.Version, s.Version)
	case r.Lineage < s.Lineage:
		return RecordWrong.Problemf("version %d has lineage %d, and the version before has %d", r.Version, r.Lineage, s.Lineage)
	case !r.Value.Valid || r.Amount.Valid == (r.Operation == operationDelete):
		return RecordWrong.Problemf("version %d, %s, has amount %v and value %v", r.Version, r.Operation, r.Amount, r.Value)
	}
	want, known := r.Amount.Int64, true
	switch r.Operation {
	case operationIncrement:
		want, known = s.Value+r.Amount.Int64, !s.Unknown
	case operationSet, operationDelete: // a delete has no amount, and leads to 0
	default:
		return RecordWrong.Problemf("version %d has the operation %q, which no client sends", r.Version, r.Operation)
	}
	if known && r.Value.Int64 != want {
		return RecordWrong.Problemf("version %d, %s, has value %d, but its operation leads to %d", r.Version, r.Operation,
			r.Value.Int64, want)
	}
	*s = State{Value: r.Value.Int64, Version: r.Version, Lineage: r.Lineage, Deleted: r.Operation == operationDelete}
	return RecordProblem{}
}

// The values of the column operation that clients cause.
const (
	operationIncrement = "increment"
	operationSet       = "set"
	operationDelete    = "delete"
)

// recordsSQL reads all rows and records in one snapshot, in the order of keys and versions.
const recordsSQL = `
SELECT coalesce(c.key, o.key), coalesce(c.value, 0), coalesce(c.version, 0), coalesce(c.lineage, 0),
	c.key IS NULL OR c.deleted_at IS NOT NULL, o.key IS NOT NULL,
	coalesce(o.version, 0), coalesce(o.lineage, 0), coalesce(o.operation, ''), o.amount, o.value, coalesce(o.request, '')
FROM counters c FULL JOIN operations o ON o.key = c.key
ORDER BY 1, o.version, o.lineage, o.day`

// latestSQL is recordsSQL for the latest records of one counter.
const latestSQL = `
SELECT c.key, c.value, c.version, c.lineage, c.deleted_at IS NOT NULL, o.version IS NOT NULL,
	coalesce(o.version, 0), coalesce(o.lineage, 0), coalesce(o.operation, ''), o.amount, o.value, coalesce(o.request, '')
FROM counters c LEFT JOIN LATERAL (
	SELECT version, lineage, operation, amount, value, request
	FROM operations WHERE key = c.key ORDER BY version DESC, lineage DESC LIMIT $2
) o ON true
WHERE c.key = $1 ORDER BY o.version, o.lineage`

// Recorded is a counter with its records, in the order of their versions.
type Recorded struct {
	Key     string
	Row     State // without a row: deleted, of version 0
	Records []Record
}

// Records calls each with every counter that has a row or records, in one snapshot. It uses the slice of records again for the next
// counter.
func (s *Stage) Records(ctx context.Context, each func(Recorded)) error {
	return s.records(ctx, each, recordsSQL)
}

// Latest returns a counter with its latest records, up to limit. Without a row it returns a zero Recorded.
func (s *Stage) Latest(ctx context.Context, key string, limit int) (latest Recorded, err error) {
	err = s.records(ctx, func(r Recorded) { latest = r }, latestSQL, key, limit)
	return latest, err
}

func (s *Stage) records(ctx context.Context, each func(Recorded), query string, args ...any) error {
	found, err := s.DB.QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("read the records: %w", err)
	}
	defer found.Close()
	var last Recorded
	for found.Next() {
		var is Recorded
		var r Record
		var isRecord bool
		err := found.Scan(&is.Key, &is.Row.Value, &is.Row.Version, &is.Row.Lineage, &is.Row.Deleted, &isRecord,
			&r.Version, &r.Lineage, &r.Operation, &r.Amount, &r.Value, &r.Request)
		if err != nil {
			return fmt.Errorf("read the records: %w", err)
		}
		if is.Key != last.Key {
			if last.Key != "" {
				each(last)
			}
			last.Key, last.Row, last.Records = is.Key, is.Row, last.Records[:0]
		}
		if isRecord {
			last.Records = append(last.Records, r)
		}
	}
	if err := found.Err(); err != nil {
		return fmt.Errorf("read the records: %w", err)
	}
	if last.Key != "" {
		each(last)
	}
	return nil
}
