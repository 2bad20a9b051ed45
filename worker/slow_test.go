package worker_test

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// limits returns the worker's gauges of batch size and pause.
func (b *testBundle) limits(t *testing.T) (rows int, pause float64) {
	t.Helper()
	return int(count(t, b.registry, "afterwrite_flush_batch_limit")), count(t, b.registry, "afterwrite_flush_pause_seconds")
}

func TestBatchesAndPausesFollowTheSpeedOfPostgres(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]string{"AFTERWRITE_SHARDS": "1", "AFTERWRITE_FLUSH_BATCH": "50", "AFTERWRITE_FLUSH_INTERVAL": "2s"})
	b.exec(t, `CREATE TABLE slowness (seconds float)`)
	b.exec(t, `INSERT INTO slowness VALUES (0.06)`)
	b.exec(t, `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN PERFORM pg_sleep(seconds) FROM slowness; RETURN NULL; END'`)
	b.exec(t, `CREATE TRIGGER slow AFTER INSERT OR UPDATE ON counters FOR EACH STATEMENT EXECUTE FUNCTION slow()`)
	rows, pause := b.limits(t)
	require.Equal(t, 10, rows, "a fifth of the largest, at first")
	require.InDelta(t, 2, pause, 0, "nothing is measured yet")
	const few = 5 // keys are no backlog
	flushUntil := func(what string, done func(rows int, pause float64) bool) {
		t.Helper()
		localtest.Eventually(t, 60*time.Second, func() (bool, string) {
			b.do(t, many(few)...)
			b.drainAll(t)
			rows, pause = b.limits(t)
			return done(rows, pause), fmt.Sprintf("%s: batches of %d, a pause of %.2f s", what, rows, pause)
		})
	}

	flushUntil("slow", func(rows int, pause float64) bool { return rows == 50 && pause == 2 })
	b.exec(t, `UPDATE slowness SET seconds = 0`)
	flushUntil("fast", func(rows int, pause float64) bool { return rows == 10 && pause < 1 })
	b.exec(t, `UPDATE slowness SET seconds = 0.06`)
	flushUntil("slow again", func(rows int, pause float64) bool { return rows == 50 && pause == 2 })
}

// Postgres was away, or the clients wanted no values: all bases must be read before the flush.
func TestManyBlindCountersAreFlushedWithRightValues(t *testing.T) {
	t.Parallel()
	const known, keys = 10_000, 20_000
	b := setup(t, map[string]string{"AFTERWRITE_SHARDS": "4"})
	b.exec(t, `INSERT INTO counters (key, value, version, updated_at) SELECT 'k' || n, n + 0, 3, now()
		FROM generate_series(0, $1::int - 1) n`, known)
	for range 2 {
		for from := 0; from < keys; from += 1000 {
			ops := make([]counter.Operation, 1000)
			for i := range ops {
				ops[i] = increment(counter.Key("k"+strconv.Itoa(from+i)), 7)
			}
			for _, r := range b.service.Do(t.Context(), ops, writepath.Options{Minimal: true}) {
				require.NoError(t, r.Err)
				require.False(t, r.Counter.Known)
			}
		}
	}
	began := time.Now()

	rows, left := b.drainAll(t)

	t.Logf("flushed %d rows in %s", rows, time.Since(began).Round(time.Millisecond))
	require.Zero(t, left)
	require.GreaterOrEqual(t, rows, int64(keys))
	var wrong int
	require.NoError(t, b.db.QueryRow(`SELECT count(*) FROM (SELECT 'k' || i AS key, i FROM generate_series(0, $2::int - 1) i) wanted
		LEFT JOIN counters USING (key)
		WHERE value IS DISTINCT FROM 14 + CASE WHEN i < $1 THEN i ELSE 0 END OR version IS DISTINCT FROM 2 + CASE WHEN i < $1 THEN 3 ELSE 0 END`,
		known, keys).Scan(&wrong))
	require.Zero(t, wrong)
	for _, i := range []int64{0, known - 1, known, keys - 1} {
		got := b.do(t, get(counter.Key("k"+strconv.FormatInt(i, 10))))[0].Counter
		want := int64(14)
		if i < known {
			want += i
		}
		require.Equal(t, want, got.Value)
		require.True(t, got.Synced)
	}
}
