package store

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// MaxListed bounds the rows of one List.
const MaxListed = 1_000

// pageSQL reads rows in the order of the primary key, from $1 on, and returns those below $2. Its plan must be an index scan that ends
// after $3 rows, whatever the statistics say. With both bounds in one condition, the planner expects few rows in a new range, sorts
// instead, and reads the whole range for every page. So the inner query has only the lower bound, and SELECT hides its value: the
// planner always expects a third of the table. The inner query reads at most $3 rows past the range.
const pageSQL = `
SELECT key, value, version, deleted_at IS NOT NULL AS deleted, lineage
FROM (SELECT key, value, version, deleted_at, lineage FROM {schema}.counters WHERE key >= (SELECT $1::text) ORDER BY key LIMIT $3) page
WHERE key < $2 ORDER BY key`

// List returns up to limit rows whose keys begin with prefix and are greater than after, in bytewise order of their keys. It includes
// tombstones, so that its work is bounded by limit. more reports whether there are further rows. A limit that is not between 1 and
// MaxListed is ErrInvalid. It blocks at most until ctx is done, or for Options.StatementTimeout plus two seconds.
func (s *Store) List(ctx context.Context, prefix string, after counter.Key, limit int) (rows []counter.Row, more bool, err error) {
	if limit < 1 || limit > MaxListed {
		return nil, false, fmt.Errorf("list counters: %w: limit %d", ErrInvalid, limit)
	}
	from := prefix
	if next := string(after) + "\x01"; after != "" && next > from { // nothing is between the two, since text has no NUL
		from = next
	}
	var found []record
	err = s.anywhere(ctx, "list counters", func(ctx context.Context, q querier) error {
		found = nil
		return q.SelectContext(ctx, &found, s.sql.page, from, endOf(prefix), limit+1)
	})
	if err != nil {
		return nil, false, err
	}
	if len(found) > limit {
		found, more = found[:limit], true
	}
	rows = make([]counter.Row, len(found))
	for i, r := range found {
		rows[i] = r.row()
	}
	return rows, more, nil
}

// beyondKeys is greater than every key in bytewise order, because it is longer than the longest key and has only the largest code point.
var beyondKeys = strings.Repeat(string(utf8.MaxRune), counter.MaxKeyBytes/utf8.UTFMax+1)

// endOf returns the least text that is greater than all keys with this prefix, in valid UTF-8, as Postgres requires. UTF-8 has the order
// of code points.
func endOf(prefix string) string {
	for prefix != "" {
		last, size := utf8.DecodeLastRuneInString(prefix)
		prefix = prefix[:len(prefix)-size]
		switch last {
		case utf8.MaxRune: // has no successor: increment the code point before it
		case 0xD7FF: // surrogates follow, which UTF-8 excludes
			return prefix + "\uE000"
		default:
			return prefix + string(last+1)
		}
	}
	return beyondKeys
}
