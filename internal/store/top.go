package store

import (
	"context"
	"fmt"

	"github.com/lib/pq"

	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// MaxTop bounds the counters of one Top.
	MaxTop = 1_000

	// fewRows is the number of rows of a prefix that Top sorts first. Reading them takes some milliseconds.
	fewRows = 1_000
	// largestRows is the number of the largest counters among which Top looks for a prefix. With more, the planner would sort the whole
	// table instead of reading the index.
	largestRows = 10_000
	// manyRows is the number of rows of a prefix that Top sorts if the prefix has too few of the largest counters. With a million rows
	// in random order, that takes 100 to 350 ms; all else takes 1 to 10 ms.
	manyRows = 100_000
)

// largestSQL reads the $1 largest counters from the index on value, and returns up to $4 of those whose keys are from $2 on and below $3.
const largestSQL = `
SELECT key FROM (
	SELECT key, value FROM {schema}.counters WHERE deleted_at IS NULL ORDER BY value DESC, key LIMIT $1
) largest
WHERE key >= $2 AND key < $3
ORDER BY value DESC, key LIMIT $4`

// sortedSQL reads up to $1 rows from $2 on in the order of the primary key, as pageSQL does, and sorts those below $3. in_range is their
// number: if it is $1, there may be more.
const sortedSQL = `
WITH in_range AS (
	SELECT key, value, deleted_at FROM (
		SELECT key, value, deleted_at FROM {schema}.counters WHERE key >= (SELECT $2::text) ORDER BY key LIMIT $1
	) page
	WHERE key < $3
)
SELECT (SELECT count(*) FROM in_range) AS in_range,
	ARRAY(SELECT key FROM in_range WHERE deleted_at IS NULL ORDER BY value DESC, key LIMIT $4) AS keys`

// Top returns the keys of the n largest counters whose keys begin with prefix, largest first and then in bytewise order. It needs the
// index that CreateTopIndex creates.
//
// With a prefix it reads a bounded number of rows, and complete is false if they are not enough: the prefix has at least 100,000 rows,
// and fewer than n of the 10,000 largest counters. Then it returns those fewer. An n that is not between 1 and MaxTop is ErrInvalid. It
// blocks at most until ctx is done, or for three times Options.StatementTimeout plus two seconds.
func (s *Store) Top(ctx context.Context, prefix string, n int) (keys []counter.Key, complete bool, err error) {
	if n < 1 || n > MaxTop {
		return nil, false, fmt.Errorf("read the top counters: %w: %d", ErrInvalid, n)
	}
	if prefix == "" {
		keys, err = s.largest(ctx, prefix, n, n)
		return keys, err == nil, err
	}
	if keys, complete, err = s.sorted(ctx, prefix, n, fewRows); err != nil || complete {
		return keys, complete, err
	}
	if keys, err = s.largest(ctx, prefix, n, largestRows); err != nil || len(keys) == n {
		return keys, err == nil, err
	}
	all, complete, err := s.sorted(ctx, prefix, n, manyRows)
	if complete {
		keys = all
	}
	return keys, complete, err
}

// largest returns up to n keys with the prefix among the most largest counters.
func (s *Store) largest(ctx context.Context, prefix string, n, most int) (keys []counter.Key, err error) {
	err = s.anywhere(ctx, "read the largest counters", func(ctx context.Context, q querier) error {
		keys = nil
		return q.SelectContext(ctx, &keys, s.sql.largest, most, prefix, endOf(prefix), n)
	})
	return keys, err
}

// sorted returns the n largest counters with the prefix, if the prefix has fewer than most rows.
func (s *Store) sorted(ctx context.Context, prefix string, n, most int) (keys []counter.Key, complete bool, err error) {
	var found struct {
		InRange int            `db:"in_range"`
		Keys    pq.StringArray `db:"keys"`
	}
	err = s.anywhere(ctx, "sort the counters of a prefix", func(ctx context.Context, q querier) error {
		return q.GetContext(ctx, &found, s.sql.sorted, most, prefix, endOf(prefix), n)
	})
	if err != nil || found.InRange >= most {
		return nil, false, err
	}
	for _, key := range found.Keys {
		keys = append(keys, counter.Key(key))
	}
	return keys, true, nil
}
