package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lib/pq"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/mapping"
)

// mappedSQL are the statements of one mapping. Their parameters are arrays with one element for each counter: its value, the value that the
// column must still have (NULL: any), and one array for each placeholder of the pattern.
type mappedSQL struct {
	update, absent, judge, insert, held, adopt, landing string

	busyUntil atomic.Int64 // see readColumn; ns after Store.opened
}

const (
	// batchOf hides the number of rows from the planner, as readSQL does: it must use the unique index, with a nested loop, for each row.
	batchOf = `unnest({arrays}) WITH ORDINALITY AS batch (value, start, {names} n)`

	// updateMappedSQL sets the column of the rows, whatever it has, in the order of the batch. judgeMappedSQL takes a fifth longer.
	updateMappedSQL = `
UPDATE {table} AS t SET {set} = batch.value FROM ` + batchOf + ` WHERE {match}`

	// absentMappedSQL returns the counters that have no row.
	absentMappedSQL = `
SELECT batch.n FROM ` + batchOf + ` WHERE NOT EXISTS (SELECT FROM {table} AS t WHERE {match})`

	// judgeMappedSQL sets the column of the rows, and returns the counters whose rows it did not update: the row does not exist, or its
	// column no longer has the value that the counter started from. It updates the rows in the order of the batch.
	judgeMappedSQL = `
WITH batch AS MATERIALIZED (SELECT value, start, {names} n FROM ` + batchOf + `),
written AS (
	UPDATE {table} AS t SET {set} = batch.value
	FROM batch
	WHERE {match} AND (batch.start IS NULL OR {value} = batch.start)
	RETURNING batch.n
)
SELECT batch.n, existing.value IS NOT NULL AS found, coalesce(existing.value, 0) AS value
FROM batch LEFT JOIN LATERAL (SELECT {value} AS value FROM {table} AS t WHERE {match}) existing ON true
WHERE batch.n NOT IN (SELECT n FROM written)`

	// insertMappedSQL inserts rows that do not exist.
	insertMappedSQL = `
INSERT INTO {table} ({columns}, {set})
SELECT {values}, batch.value FROM ` + batchOf + `
ON CONFLICT ({columns}) DO NOTHING`

	// heldMappedSQL locks the rows, without waiting, until the end of the transaction. It returns those that another transaction locks.
	heldMappedSQL = `
WITH batch AS MATERIALIZED (
	SELECT value, start, {names} n FROM ` + batchOf + `
),
free AS MATERIALIZED (SELECT batch.n FROM batch, {table} AS t WHERE {match} FOR NO KEY UPDATE OF t SKIP LOCKED)
SELECT batch.n FROM batch, {table} AS t WHERE {match} AND batch.n NOT IN (SELECT n FROM free)`

	// adoptSQL reads the column of counters that have no row in counters. NULL and 0 mean no counter: one without a row starts from 0, too.
	adoptSQL = `
SELECT batch.n, {value} AS value FROM ` + batchOf + `, {table} AS t
WHERE {match} AND {value} <> 0`
)

// columnValue is the column t.{set} as a bigint; NULL is 0. A numeric column may have fractions, or be out of range.
const columnValue = `least(greatest(round(coalesce(t.{set}, 0)::numeric), -9223372036854775808), 9223372036854775807)::bigint`

// fixedArrays is the number of arrays before those of the placeholders: value and start.
const fixedArrays = 2

func newMappedSQL(m *mapping.Mapping, counters string) *mappedSQL {
	placeholders := m.Pattern.Placeholders()
	arrays := append(make([]string, 0, fixedArrays+len(placeholders)), "(SELECT $1::bigint[])", "(SELECT $2::bigint[])")
	var names strings.Builder
	for i, p := range placeholders {
		arrays = append(arrays, fmt.Sprintf("(SELECT $%d::%s)", fixedArrays+1+i, arrayType(p.Type)))
		names.WriteString(placeholderName(i) + ", ")
	}
	columns, values, match := make([]string, 0, len(m.Where)), make([]string, 0, len(m.Where)), make([]string, 0, len(m.Where))
	for _, c := range m.Where {
		value := pq.QuoteLiteral(c.Constant)
		if c.Placeholder >= 0 {
			value = "batch." + placeholderName(c.Placeholder)
		}
		columns, values = append(columns, pq.QuoteIdentifier(c.Name)), append(values, value)
		match = append(match, "t."+pq.QuoteIdentifier(c.Name)+" = "+value)
	}
	deleted := "0"
	if m.DeletedNull {
		deleted = "NULL"
	}
	replacer := strings.NewReplacer(
		"{counters}", counters, "{deleted}", deleted,
		"{arrays}", strings.Join(arrays, ", "), "{names}", names.String(),
		"{table}", qualified(m.Schema, m.Table), "{set}", pq.QuoteIdentifier(m.Set),
		"{value}", strings.ReplaceAll(columnValue, "{set}", pq.QuoteIdentifier(m.Set)),
		"{columns}", strings.Join(columns, ", "), "{values}", strings.Join(values, ", "), "{match}", strings.Join(match, " AND "),
	)
	return &mappedSQL{
		update: replacer.Replace(updateMappedSQL), absent: replacer.Replace(absentMappedSQL), judge: replacer.Replace(judgeMappedSQL),
		insert: replacer.Replace(insertMappedSQL),
		held:   replacer.Replace(heldMappedSQL), adopt: replacer.Replace(adoptSQL),
		landing: replacer.Replace(landingSQL) + "$" + strconv.Itoa(len(arrays)+1),
	}
}

func newMappedStatements(mappings *mapping.Mappings, counters string) map[*mapping.Mapping]*mappedSQL {
	statements := make(map[*mapping.Mapping]*mappedSQL)
	for _, m := range mappings.All() {
		statements[m] = newMappedSQL(m, counters)
	}
	return statements
}

func placeholderName(i int) string { return "w" + strconv.Itoa(i+1) }

// arrayType returns the type of a placeholder's array, and its conversion.
func arrayType(t mapping.Type) string {
	switch t {
	case mapping.Int:
		return "bigint[]"
	case mapping.UUID:
		return "text[]::uuid[]"
	case mapping.Date:
		return "text[]::date[]"
	case mapping.Text:
	}
	return "text[]"
}

// mappedRows are the rows of a batch that land in one column, in the order in which their rows are locked.
type mappedRows struct {
	*mapping.Mapping

	sql  *mappedSQL
	rows []mappedRow
}

// mappedRow is a counter with the values of its key's placeholders. An int is in numbers, everything else in texts.
type mappedRow struct {
	counter.Row

	texts   []string
	numbers []int64
}

// mapped returns the rows of batch that have a mapping, in an order that all processes share: by table and mapping, and then by the
// columns that find the row. Batches of one mapping cannot deadlock. Batches of two mappings of one table may meet in another order;
// then one of them gives up its locks after 20 ms (see briefly), long before Postgres would look for a deadlock.
func (s *Store) mapped(batch []counter.Row) []*mappedRows {
	if s.mappings == nil {
		return nil
	}
	var all []*mappedRows
	byMapping := make(map[*mapping.Mapping]*mappedRows)
	for i := range batch {
		m, texts := s.mappings.Match(batch[i].Key)
		if m == nil {
			continue
		}
		rows := byMapping[m]
		if rows == nil {
			rows = &mappedRows{Mapping: m, sql: s.mappedSQL[m]}
			byMapping[m], all = rows, append(all, rows)
		}
		rows.rows = append(rows.rows, newMappedRow(m, batch[i], texts))
	}
	slices.SortFunc(all, func(a, b *mappedRows) int {
		return cmp.Or(cmp.Compare(a.Schema, b.Schema), cmp.Compare(a.Table, b.Table), cmp.Compare(a.Name, b.Name))
	})
	for _, rows := range all {
		slices.SortFunc(rows.rows, rows.compare)
	}
	return all
}

func newMappedRow(m *mapping.Mapping, row counter.Row, texts []string) mappedRow {
	r := mappedRow{Row: row, texts: texts}
	for i, p := range m.Pattern.Placeholders() {
		if p.Type == mapping.Int {
			if r.numbers == nil {
				r.numbers = make([]int64, len(texts))
			}
			r.numbers[i], _ = strconv.ParseInt(texts[i], 10, 64) // Match has checked it
		}
	}
	return r
}

// compare orders rows by the columns that find them.
func (m *mappedRows) compare(a, b mappedRow) int {
	for _, c := range m.Where {
		i := c.Placeholder
		if i < 0 {
			continue
		}
		order := strings.Compare(a.texts[i], b.texts[i])
		if m.Pattern.Placeholders()[i].Type == mapping.Int {
			order = cmp.Compare(a.numbers[i], b.numbers[i])
		}
		if order != 0 {
			return order
		}
	}
	return 0
}

// args returns the parameters of the mapping's statements for rows.
func (m *mappedRows) args(rows []mappedRow) []any {
	args := []any{
		nullableArray(rows, func(r mappedRow) (int64, bool) { return r.Value, !r.Deleted || !m.DeletedNull }),
		nullableArray(rows, func(r mappedRow) (int64, bool) { return r.Start, first(&r.Row) }),
	}
	for i, p := range m.Pattern.Placeholders() {
		if p.Type == mapping.Int {
			args = append(args, int64Array(rows, func(r mappedRow) int64 { return r.numbers[i] }))
		} else {
			args = append(args, textArray(rows, func(r mappedRow) string { return r.texts[i] }))
		}
	}
	return args
}

// first reports whether a row may be the first flush of a counter that has counted on from the value of its column.
func first(r *counter.Row) bool { return r.Started && r.Base == 0 } // step: start

// failed returns the error of a statement on the mapping's table.
func (m *mappedRows) failed(err error) *MappingError {
	if concernsRow(err) {
		err = fmt.Errorf("%w: %w", ErrNotStored, err)
	}
	return &MappingError{Mapping: m.Name, Err: err}
}

// adopt adds the values of columns to found, for the mapped keys that it lacks. unread are the errors of mappings whose tables cannot be
// read.
func (s *Store) adopt(ctx context.Context, keys []counter.Key, found map[counter.Key]counter.Row) (unread []*MappingError, err error) {
	var cold []counter.Row
	for _, key := range keys {
		if _, has := found[key]; !has {
			cold = append(cold, counter.Row{Key: key})
		}
	}
	late := false
	for _, part := range s.mapped(cold) {
		values, err := s.readColumn(ctx, part)
		failed := part.failed(err)
		if errors.Is(err, errLate) && !late { // a second one may only have had too little time left
			part.sql.busyUntil.Store(int64(time.Since(s.opened) + busyFor))
			late = true
		}
		switch {
		case isBroken(err), errors.Is(err, ErrBusy):
			for _, row := range part.rows {
				failed.Keys = append(failed.Keys, row.Key)
			}
			unread = append(unread, failed)
		case err != nil:
			return nil, failed
		}
		for _, a := range values {
			key := part.rows[a.N-1].Key
			found[key] = counter.Row{Key: key, Value: a.Value}
		}
	}
	return unread, nil
}

// ErrBusy is returned, wrapped, in a MappingError of Read whose table is locked by another transaction, or slow.
var ErrBusy = errors.New("the table is locked by another transaction, or slow")

// errLate is ErrBusy after an attempt.
var errLate = fmt.Errorf("%w", ErrBusy)

// busyFor is how long Read does not ask a table again that was busy: each attempt takes half the time of its caller, and perhaps a
// connection.
const busyFor = time.Second

// adopted is the value that a counter starts from.
type adopted struct {
	N     int   `db:"n"`
	Value int64 `db:"value"`
}

// readColumn reads the column of one mapping. It takes half of the time that is left, so that ALTER TABLE does not delay the reads of all
// other counters.
func (s *Store) readColumn(ctx context.Context, part *mappedRows) (values []adopted, err error) {
	if time.Since(s.opened) < time.Duration(part.sql.busyUntil.Load()) {
		return nil, ErrBusy
	}
	half := ctx
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		half, cancel = context.WithTimeout(ctx, time.Until(deadline)/2)
		defer cancel()
	}
	err = s.db.SelectContext(half, &values, part.sql.adopt, part.args(part.rows)...)
	if IsLocked(err) || err != nil && half.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w (%w)", errLate, err)
	}
	return values, err
}

// MappingError is an error of a statement on a mapped table, or a refusal of one of its rows.
type MappingError struct {
	Mapping string
	// Keys are the keys that Read did not read. Its result has all the others.
	Keys []counter.Key
	Err  error
}

func (e *MappingError) Error() string { return "mapping " + e.Mapping + ": " + e.Err.Error() }
func (e *MappingError) Unwrap() error { return e.Err }

// Unread returns the keys that a Read did not read although Postgres answered, because a mapped table is busy (ErrBusy), or its schema or
// permissions are wrong. The rows of all other keys are in its result. It returns nil after any other error.
func Unread(err error) map[counter.Key]bool {
	var unread map[counter.Key]bool
	for _, failed := range MappingErrors(err) {
		if unread == nil {
			unread = make(map[counter.Key]bool)
		}
		for _, key := range failed.Keys {
			unread[key] = true
		}
	}
	return unread
}

// MappingErrors returns the errors of the mappings that a Read could not read, see Unread.
func MappingErrors(err error) []*MappingError {
	if partial, ok := errors.AsType[*partialError](err); ok {
		return partial.failed
	}
	return nil
}

// partialError is the error of a Read whose result lacks the keys of some mappings.
type partialError struct{ failed []*MappingError }

func (e *partialError) Error() string {
	texts := make([]string, len(e.failed))
	for i, failed := range e.failed {
		texts[i] = failed.Error()
	}
	return "read the columns of counters: " + strings.Join(texts, "; ")
}

// add adds the failures of another partialError.
func (e *partialError) add(err error) {
	if other, ok := errors.AsType[*partialError](err); ok {
		e.failed = append(e.failed, other.failed...)
	}
}

// Unwrap returns the errors of the mappings.
func (e *partialError) Unwrap() []error {
	all := make([]error, len(e.failed))
	for i, failed := range e.failed {
		all[i] = failed
	}
	return all
}
