package operate

import (
	"context"
	"fmt"

	"golang.org/x/time/rate"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/mapping"
	"github.com/afterwrite/afterwrite/internal/store"
)

const (
	// tablePage is the number of rows of the user's table that one page reads.
	tablePage = 5_000
	// columnPage is the number of counters that one page writes to a column or compares with it.
	columnPage = 1_000
)

// Column carries out actions on the column of one mapping. It needs only Postgres. It is safe for concurrent use, while processes run.
type Column struct {
	store    *store.Store
	mappings *mapping.Mappings
	mapping  *mapping.Mapping
	column   *store.Column
}

// OpenColumn returns the Column of the mapping called name. It reads the indexes of the table.
func OpenColumn(ctx context.Context, s *store.Store, mappings *mapping.Mappings, name string) (*Column, error) {
	m := mappings.Named(name)
	if m == nil {
		return nil, fmt.Errorf("there is no mapping %q in the file of AFTERWRITE_MAPPINGS%s", name, namesOf(mappings))
	}
	column, err := s.Column(ctx, m)
	if err != nil {
		return nil, err
	}
	return &Column{store: s, mappings: mappings, mapping: m, column: column}, nil
}

// namesOf lists the names of mappings, as the end of a sentence.
func namesOf(mappings *mapping.Mappings) string {
	text := ""
	for i, m := range mappings.All() {
		switch i {
		case 0:
			text = ": it has " + m.Name
		case maxNames:
			return text + ", ..."
		default:
			text += ", " + m.Name
		}
	}
	return text
}

// maxNames bounds the names in an error.
const maxNames = 20

// Rows returns Postgres's estimate of the rows of the table. 0: unknown.
func (c *Column) Rows() int64 { return c.column.Rows() }

// Counters returns Postgres's estimate of the counters of the mapping.
func (c *Column) Counters(ctx context.Context) (int64, error) { return c.column.Counters(ctx) }

// newLimiter returns a limiter of n rows a second in pages of at most page rows. 0: no limit.
func newLimiter(n, page int) *rate.Limiter {
	if n == 0 {
		return rate.NewLimiter(rate.Inf, page)
	}
	return rate.NewLimiter(rate.Limit(n), page)
}

// eachPage calls do with the mapping's counters in Postgres, in pages of up to columnPage, in the order of their keys.
func (c *Column) eachPage(ctx context.Context, rowsPerSecond int, do func(targets []store.Target) error) error {
	limiter := newLimiter(rowsPerSecond, columnPage)
	after := counter.Key("")
	for more := true; more; {
		var rows []counter.Row
		var err error
		if rows, more, err = c.store.List(ctx, c.mapping.Prefix(), after, columnPage); err != nil {
			return err
		}
		targets := make([]store.Target, 0, len(rows))
		for _, row := range rows {
			if m, values := c.mappings.Match(row.Key); m == c.mapping {
				targets = append(targets, store.Target{Key: row.Key, Values: values})
			}
			after = row.Key
		}
		if err := limiter.WaitN(ctx, len(rows)); err != nil {
			return err
		}
		if err := do(targets); err != nil {
			return err
		}
	}
	return nil
}

// eachTablePage calls do with the rows of the table after a cursor (nil: from the start), in pages of up to tablePage.
func (c *Column) eachTablePage(ctx context.Context, rowsPerSecond int, after []string, do func(rows []store.TableRow) error) error {
	limiter := newLimiter(rowsPerSecond, tablePage)
	for {
		rows, err := c.column.Page(ctx, after, tablePage)
		if err != nil {
			return err
		}
		if err := limiter.WaitN(ctx, len(rows)); err != nil {
			return err
		}
		if err := do(rows); err != nil || len(rows) < tablePage {
			return err
		}
		after = rows[len(rows)-1].Cursor
	}
}

// targets returns the rows that have a key, and calls other for the rest. It leaves out those whose column is NULL or 0.
func (c *Column) targets(rows []store.TableRow, other func(row store.TableRow)) []store.Target {
	targets := make([]store.Target, 0, len(rows))
	for _, row := range rows {
		if !row.Counts {
			continue
		}
		if key, ok := c.mapping.CounterKey(row.Values); ok {
			targets = append(targets, store.Target{Key: key, Values: row.Values})
		} else {
			other(row)
		}
	}
	return targets
}
