package store

import (
	"context"
	"errors"
	"fmt"
)

// TableRow is a row of the user's table.
type TableRow struct {
	Values []string // of the placeholders; texts too long for a key may be cut
	Cursor []string // for the rows after this one
	Counts bool     // the column is neither NULL nor 0: a counter can start from it
}

// pageOfTableSQL reads rows in the order of a unique index, so the plan is an index scan that ends after $1 rows.
const pageOfTableSQL = `
SELECT {value} <> 0{selected} FROM {table} AS t WHERE {present}%s %s LIMIT $1`

const afterSQL = ` AND ({order}) > ({cursor})`

// Page returns up to limit rows of the table after a cursor (nil: from the start), in the order of a unique index. It leaves out rows
// that have NULL in a column of where, or another value where that has a constant: they can have no counter. A cursor that does not fit
// the table is Refused.
func (c *Column) Page(ctx context.Context, after []string, limit int) ([]TableRow, error) {
	if limit < 1 || limit > MaxBatch {
		return nil, fmt.Errorf("read %s: %w: limit %d", c.mapping.Table, ErrInvalid, limit)
	}
	statement, args := c.page[0], []any{limit}
	if after != nil {
		if len(after) != len(c.order) {
			return nil, fmt.Errorf("read %s: %w: a cursor has %d values, not %d", c.mapping.Table, ErrInvalid, len(after), len(c.order))
		}
		if len(after) == 0 { // where has only constants: there is one row
			return nil, nil
		}
		statement = c.page[1]
		for _, value := range after {
			args = append(args, value)
		}
	}
	var page []TableRow
	err := c.store.guard(ctx, "read "+c.mapping.Table, func(ctx context.Context) (err error) {
		page, err = c.read(ctx, statement, args, limit)
		return err
	})
	return page, err
}

func (c *Column) read(ctx context.Context, statement string, args []any, limit int) (page []TableRow, err error) {
	rows, err := c.store.db.QueryContext(ctx, statement, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	page = make([]TableRow, 0, limit)
	for rows.Next() {
		row := TableRow{Values: make([]string, len(c.mapping.Pattern.Placeholders())), Cursor: make([]string, len(c.order))}
		into := []any{&row.Counts}
		for i := range row.Values {
			into = append(into, &row.Values[i])
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		for i, p := range c.order {
			row.Cursor[i] = row.Values[p]
		}
		page = append(page, row)
	}
	return page, rows.Err()
}
