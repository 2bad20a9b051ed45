package store

import (
	"context"
	"fmt"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// lockedSQL takes those of the rows that nobody holds, for the length of the statement, and returns the others.
const lockedSQL = `
WITH wanted AS MATERIALIZED (SELECT unnest($1::text[]) AS key),
free AS MATERIALIZED (
	SELECT key FROM counters WHERE key = ANY (ARRAY(SELECT key FROM wanted)) FOR NO KEY UPDATE SKIP LOCKED
)
SELECT key FROM counters WHERE key = ANY (ARRAY(SELECT key FROM wanted)) AND key NOT IN (SELECT key FROM free)`

// Locked returns those of keys, at most MaxBatch (else ErrInvalid), whose rows somebody else holds locked now, so that an
// Upsert would have to wait. It does not see a row that is being inserted, and where the whole table is locked it returns
// none, or runs into the lock itself. It blocks until ctx is done, or for Options.StatementTimeout plus two seconds, at most.
func (s *Store) Locked(ctx context.Context, keys []counter.Key) ([]counter.Key, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	if len(keys) > MaxBatch {
		return nil, fmt.Errorf("look for locks on %d rows: %w: at most %d keys", len(keys), ErrInvalid, MaxBatch)
	}
	var locked []counter.Key
	err := s.guard(ctx, fmt.Sprintf("look for locks on %d rows", len(keys)), func(ctx context.Context) error {
		return s.db.SelectContext(ctx, &locked, lockedSQL, keyArray(keys, func(k counter.Key) counter.Key { return k }))
	})
	return locked, err
}
