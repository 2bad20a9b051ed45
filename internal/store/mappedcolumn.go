package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lib/pq"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/mapping"
)

// Target is a counter and the row of the user's table that it means.
type Target struct {
	Key    counter.Key
	Values []string // of the placeholders, in the order of the pattern
}

// Column reads and writes the column of one mapping, for the commands of operators. Open one with Store.Column. Its methods block at most
// until ctx is done, or for Options.StatementTimeout plus two seconds for each statement. They are safe for concurrent use.
type Column struct {
	store   *Store
	mapping *mapping.Mapping
	order   []int // the placeholders whose columns sort the table as a unique index does
	rows    int64 // estimate

	page                  [2]string // the first page, and the page after a cursor
	adopt, backfill, held string
	compare, lacking      string
	estimate              string
}

// uniqueSQL returns the columns of the unique indexes that can find a row, in their order, the primary key first, and an estimate of the
// rows of the table. reltuples is -1 for a table that was never analyzed.
const uniqueSQL = `
SELECT greatest(c.reltuples, 0)::bigint AS rows, ARRAY(
	SELECT a.attname::text FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY k (number, position)
	JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
	WHERE k.position <= i.indnkeyatts ORDER BY k.position) AS columns
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_index i ON i.indrelid = c.oid
WHERE n.nspname = $1 AND c.relname = $2 AND i.indisunique AND i.indisvalid AND i.indisready AND i.indislive AND i.indimmediate
  AND i.indpred IS NULL AND i.indexprs IS NULL
ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid`

// Column returns the Column of m. It fails if the table has no unique index that finds the rows of m.
func (s *Store) Column(ctx context.Context, m *mapping.Mapping) (*Column, error) {
	var indexes []struct {
		Rows    int64          `db:"rows"`
		Columns pq.StringArray `db:"columns"`
	}
	err := s.guard(ctx, "read the indexes of "+m.Table, func(ctx context.Context) error {
		indexes = nil
		return s.db.SelectContext(ctx, &indexes, uniqueSQL, m.Schema, m.Table)
	})
	if err != nil {
		return nil, err
	}
	for _, index := range indexes {
		if order, ok := orderBy(m, index.Columns); ok {
			c := &Column{store: s, mapping: m, order: order, rows: index.Rows}
			c.prepare()
			return c, nil
		}
	}
	return nil, fmt.Errorf("mapping %s: there is no table %s with a unique index on columns of where: see `afterwrite mappings check`",
		m.Name, qualified(m.Schema, m.Table))
}

// orderBy returns the placeholders of an index's columns. A column with a constant has only one value, so it does not sort. ok is false if
// the index has a column that is not in where.
func orderBy(m *mapping.Mapping, columns []string) (order []int, ok bool) {
	for _, name := range columns {
		i := slices.IndexFunc(m.Where, func(c mapping.Column) bool { return c.Name == name })
		if i < 0 {
			return nil, false
		}
		if p := m.Where[i].Placeholder; p >= 0 {
			order = append(order, p)
		}
	}
	return order, true
}

// Rows returns Postgres's estimate of the number of rows of the table. 0: unknown.
func (c *Column) Rows() int64 { return c.rows }

// columnTemplate are the parts of statements on the table of a mapping, which is t, for the counters in batch. Lists of what each
// placeholder has begin with a comma, since a pattern may have none.
type columnTemplate struct {
	types    []string // of the placeholders
	names    string   // ", v0, v1": the placeholders in batch
	selected string   // ", t.id::text, t.day::text"
	inserted string   // "batch.v0, 'post'": the values of where
	where    string   // its columns
	sort     string   // "batch.v0, ": the placeholders in the order of where, which is the order in which a flush locks rows
	match    string   // t is the row of batch
	present  string   // t is a row that a counter can have
	order    []string // the columns that sort
	cursor   []string // parameters for them, from $2 on
}

// prepare makes the statements.
func (c *Column) prepare() {
	m := c.mapping
	placeholders := m.Pattern.Placeholders()
	var t columnTemplate
	columns, selected := make([]string, len(placeholders)), make([]string, len(placeholders))
	for i, p := range placeholders {
		t.types = append(t.types, sqlType(p.Type))
		t.names += ", " + valueName(i)
	}
	var where, match, present, inserted []string
	for _, column := range m.Where {
		name := pq.QuoteIdentifier(column.Name)
		where = append(where, name)
		if column.Placeholder < 0 {
			constant := pq.QuoteLiteral(column.Constant)
			match, present = append(match, "t."+name+" = "+constant), append(present, "t."+name+" = "+constant)
			inserted = append(inserted, constant)
			continue
		}
		i := column.Placeholder
		columns[i] = "t." + name
		selected[i] = columns[i] + "::text"
		if placeholders[i].Type == mapping.Text && !slices.Contains(c.order, i) {
			// Only an index bounds its values. A longer text has no counter, since a key is shorter.
			selected[i] = fmt.Sprintf("left(%s, %d)", columns[i], counter.MaxKeyBytes+1)
		}
		value := "batch." + valueName(i)
		match, present = append(match, columns[i]+" = "+value), append(present, columns[i]+" IS NOT NULL")
		inserted = append(inserted, value)
		if t.sort += value; placeholders[i].Type == mapping.Text {
			t.sort += ` COLLATE "C"`
		}
		t.sort += ", "
	}
	for i, p := range c.order {
		t.order = append(t.order, columns[p])
		t.cursor = append(t.cursor, fmt.Sprintf("$%d::%s", i+2, t.types[p]))
	}
	for _, s := range selected {
		t.selected += ", " + s
	}
	t.where, t.inserted = strings.Join(where, ", "), strings.Join(inserted, ", ")
	t.match, t.present = strings.Join(match, " AND "), strings.Join(present, " AND ")

	c.page[0] = c.fill(t, 0, pageOfTableSQL, "", orderBySQL(t.order))
	c.page[1] = c.fill(t, 0, pageOfTableSQL, afterSQL, orderBySQL(t.order))
	c.adopt = c.fill(t, 2, importSQL)
	c.compare, c.lacking, c.estimate = c.fill(t, 2, compareSQL), c.fill(t, 2, lackingSQL), c.fill(t, 2, estimateSQL)
	c.held = c.fill(t, 2, heldSQL)
	insert, without := "", ""
	if m.Missing == mapping.Insert {
		insert, without = backfillInsertSQL, backfillInsertedSQL
	}
	c.backfill = c.fill(t, 3, backfillSQL, insert, without)
}

// fill fills in a template, in which %s are texts. The arrays of the placeholders' values are parameters from first on.
func (c *Column) fill(t columnTemplate, first int, template string, texts ...string) string {
	for _, text := range texts {
		template = strings.Replace(template, "%s", text, 1)
	}
	var arrays strings.Builder
	for i, sqlType := range t.types {
		fmt.Fprintf(&arrays, ", $%d::text[]::%s[]", first+i, sqlType)
	}
	deleted := "0"
	if c.mapping.DeletedNull {
		deleted = "NULL"
	}
	set := pq.QuoteIdentifier(c.mapping.Set)
	return strings.NewReplacer(
		"{counters}", qualified(c.store.schema, tableCounters), "{table}", qualified(c.mapping.Schema, c.mapping.Table),
		"{set}", set, "{value}", strings.ReplaceAll(columnValue, "{set}", set), "{deleted}", deleted,
		"{arrays}", arrays.String(), "{names}", t.names,
		"{selected}", t.selected, "{inserted}", t.inserted, "{where}", t.where, "{sort}", t.sort, "{match}", t.match,
		"{present}", t.present, "{order}", strings.Join(t.order, ", "), "{cursor}", strings.Join(t.cursor, ", "),
	).Replace(template)
}

// args returns the parameters of a statement for targets: first, their keys, then rest, and an array for each placeholder.
func (c *Column) args(targets []Target, rest ...any) []any {
	args := append([]any{keyArray(targets, func(t Target) counter.Key { return t.Key })}, rest...)
	for i := range c.mapping.Pattern.Placeholders() {
		args = append(args, keyArray(targets, func(t Target) counter.Key { return counter.Key(t.Values[i]) }))
	}
	return args
}

const (
	// contendedTries bounds the attempts for rows that another transaction locks or inserts.
	contendedTries = 3
	// contendedPause bounds the wait between two of them.
	contendedPause = 100 * time.Millisecond
)

// guard is Store.guard for a statement that may fail because of other transactions, which it does not take for an outage.
func (c *Column) guard(ctx context.Context, what string, call func(ctx context.Context) error) error {
	var contended error
	err := c.store.guard(ctx, what, func(ctx context.Context) error {
		err := again(ctx, func() error { return call(ctx) })
		if isContended(err) {
			contended = fmt.Errorf("%s: %w", what, err)
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	return contended
}

// isContended reports whether a statement failed because of other transactions, so that it may succeed a little later.
func isContended(err error) bool { return IsLocked(err) || Classify(err) == Contended }

// check returns ErrInvalid for more than MaxBatch targets.
func (c *Column) check(targets []Target) error {
	if len(targets) > MaxBatch {
		return fmt.Errorf("mapping %s: %w: at most %d keys", c.mapping.Name, ErrInvalid, MaxBatch)
	}
	return nil
}

// sqlType returns the type of the parameters for a placeholder. A column may have a smaller type of the same family.
func sqlType(t mapping.Type) string {
	switch t {
	case mapping.Int:
		return "bigint"
	case mapping.UUID:
		return "uuid"
	case mapping.Date:
		return "date"
	case mapping.Text:
	}
	return "text"
}

// orderBySQL returns an ORDER BY, or nothing if where has only constants, which find one row.
func orderBySQL(columns []string) string {
	if len(columns) == 0 {
		return ""
	}
	return "ORDER BY {order}"
}

// valueName names the values of a placeholder in batch.
func valueName(i int) string { return "v" + strconv.Itoa(i) }
