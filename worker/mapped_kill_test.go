package worker_test

import (
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// stopAtSQL creates a trigger that waits while a test holds an advisory lock.
const stopAtSQL = `
CREATE FUNCTION stop_here() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS $$
	BEGIN PERFORM pg_advisory_xact_lock_shared(13); RETURN NULL; END $$;
CREATE `

// The connection of a worker ends in the middle of a flush. Then nothing of the flush is visible, and the next flush writes all of it.
func TestAFlushThatIsKilledWritesNeitherCounterNorColumn(t *testing.T) {
	t.Parallel()
	for point, trigger := range map[string]string{
		"before the column": `TRIGGER stop BEFORE UPDATE ON public.posts FOR EACH STATEMENT EXECUTE FUNCTION stop_here()`,
		"between the column and its commit": `CONSTRAINT TRIGGER stop AFTER UPDATE ON public.posts DEFERRABLE INITIALLY DEFERRED
			FOR EACH ROW EXECUTE FUNCTION stop_here()`,
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			b := setupMapped(t, "ignore", impatient())
			b.exec(t, `UPDATE public.posts SET likes = 1000 WHERE id = 2`)
			b.exec(t, stopAtSQL+trigger)
			stop := b.holdFlush(t)
			b.do(t, increment(likes(1), 3), increment(likes(2), 4), increment("other", 5))
			b.run(t)
			b.sendDrains(t)
			pid := b.awaitStopped(t)
			b.requireNothingFlushed(t)

			b.exec(t, fmt.Sprintf(`SELECT pg_terminate_backend(%d, 5000)`, pid))
			b.requireNothingFlushed(t)
			require.NoError(t, stop.Rollback())
			b.eventuallyDrained(t, 20)
			b.agree(t)
			require.Equal(t, int64(3), b.column(t, `SELECT likes FROM public.posts WHERE id = 1`))
			require.Equal(t, int64(1004), b.column(t, `SELECT likes FROM public.posts WHERE id = 2`))
			require.Equal(t, int64(5), b.column(t, `SELECT value FROM counters WHERE key = 'other'`))
			require.Equal(t, int64(3), b.column(t, `SELECT count(*) FROM counters`))
		})
	}
}

// holdFlush makes flushes wait at the trigger until the transaction ends.
func (b *testBundle) holdFlush(t *testing.T) *sql.Tx {
	t.Helper()
	tx, err := b.db.Begin()
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback() })
	_, err = tx.Exec(`SELECT pg_advisory_xact_lock(13)`)
	require.NoError(t, err)
	return tx
}

// awaitStopped waits until a flush waits at the trigger, and returns the process ID of its backend.
func (b *testBundle) awaitStopped(t *testing.T) (pid int) {
	t.Helper()
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		err := b.db.QueryRow(`SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) LIMIT 1`).Scan(&pid)
		return err == nil, fmt.Sprint(err)
	})
	return pid
}

// requireNothingFlushed requires that a reader sees neither counters nor changed columns of the mapped keys.
func (b *testBundle) requireNothingFlushed(t *testing.T) {
	t.Helper()
	require.Zero(t, b.column(t, `SELECT count(*) FROM counters WHERE key LIKE 'post:%'`))
	require.Zero(t, b.column(t, `SELECT count(*) FROM public.posts WHERE likes <> CASE WHEN id = 2 THEN 1000 ELSE 0 END`))
}
