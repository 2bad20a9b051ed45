package up

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/config"
)

// drained is the result of one drain.
type drained struct {
	rows, left int64
	err        error
}

// lastFlushOf runs the last flush with drains that return these results. The last result is repeated.
func lastFlushOf(t *testing.T, results ...drained) (outcome string, calls int) {
	t.Helper()
	u := &up{migrated: true, Options: Options{
		Drain: func(context.Context, config.Config) (int64, int64, error) {
			r := results[min(calls, len(results)-1)]
			calls++
			return r.rows, r.left, r.err
		},
	}}
	return u.lastFlush(t.Context()), calls
}

func TestLastFlushDrainsUntilNothingIsDirty(t *testing.T) {
	t.Parallel()
	outcome, calls := lastFlushOf(t, drained{rows: 5, left: 3}, drained{rows: 3, left: 0})

	require.Equal(t, ": Postgres has every counter (rows in the last flush: 8)", outcome)
	require.Equal(t, 2, calls)
}

func TestLastFlushStopsAfterSeveralDrainsWithoutProgress(t *testing.T) {
	t.Parallel()
	outcome, calls := lastFlushOf(t, drained{rows: 5, left: 2}, drained{rows: 0, left: 2})

	require.Contains(t, outcome, "2 counters are still dirty in Redis")
	require.Equal(t, 1+drainIdle, calls)
}

func TestLastFlushReportsItsError(t *testing.T) {
	t.Parallel()
	outcome, _ := lastFlushOf(t, drained{left: 2, err: errors.New("postgres is unavailable")})

	require.Contains(t, outcome, "postgres is unavailable")
	require.Contains(t, outcome, "the next `afterwrite up` flushes them")
}

func TestNoLastFlushBeforeTheMigration(t *testing.T) {
	t.Parallel()
	require.Empty(t, (&up{}).lastFlush(t.Context()))
}
