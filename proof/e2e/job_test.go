package e2e_test

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/tasks"
)

func TestWritesAreReadableAtOnceAndReachPostgres(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := s.client()
	defer c.close()

	l := c.load(10, 10, 100, nil) // 1,000 increments over 10 keys
	set := c.must(t, http.MethodPut, "/v1/counters/page%3Ahome", `{"value":42}`)
	c.must(t, http.MethodPut, "/v1/counters/gone", `{"value":1}`)
	c.must(t, http.MethodDelete, "/v1/counters/gone", "")

	require.Equal(t, int64(42), *set.Value)
	require.Equal(t, int64(1), *set.Version)
	require.Equal(t, "page:home", set.Key)
	for i := range 10 {
		require.Equal(t, int64(100), *c.must(t, http.MethodGet, fmt.Sprintf("/v1/counters/key%d", i), "").Value, "before the flush")
	}
	got, err := c.call(http.MethodGet, "/v1/counters/gone", "")
	require.NoError(t, err)
	require.Equal(t, http.StatusNotFound, got.status)

	took := s.eventuallyClean(t, 10*time.Second)
	t.Logf("no key was dirty %v after the last write", took)
	s.requireExact(t, c, l)
	require.Equal(t, int64(42), s.rows(t)["page:home"])
	require.NotContains(t, s.rows(t), "gone")
	require.Zero(t, s.archived(t))
}

func TestHotKeyCostsOneRowPerIntervalAndFewTasks(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := s.client()
	defer c.close()

	started := time.Now()
	l := c.load(50, 1, 2000, nil) // 100,000 increments on one key
	s.eventuallyClean(t, 15*time.Second)
	took := time.Since(started)

	require.Equal(t, int64(100_000), l.acknowledged["key0"], "%s", l)
	s.requireExact(t, c, l)
	rows := metric(t, "afterwrite_flushed_rows_total", s.workers...)
	intervals := math.Ceil(took.Seconds()) + 1 // FLUSH_INTERVAL is 1s, and there is one more flush at the end
	processed := s.processed(t, tasks.QueueFlush)
	t.Logf("100,000 increments in %v: %v rows, %d tasks", took, rows, processed)
	require.LessOrEqual(t, rows, intervals)
	require.LessOrEqual(t, processed, 10*int(intervals), "the number of tasks depends on flushes, not on writes")
}

func TestCountersContinueFromPostgresAfterRedisWasEmptied(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := s.client()
	defer c.close()
	c.must(t, http.MethodPut, "/v1/counters/a", `{"value":41}`)
	c.must(t, http.MethodPut, "/v1/counters/b", `{"value":7}`)
	s.eventuallyClean(t, 10*time.Second)
	require.Zero(t, metric(t, "afterwrite_redis_emptied_total", s.workers...), "a new Redis does not count as emptied")
	require.NoError(t, s.Redis.FlushAll(context.Background()).Err())

	// The api waits for at most 100 ms for Postgres to hydrate a cold counter. On a busy machine Postgres may take longer: then the
	// api accepts the increment without a value, and refuses the read.
	c.must(t, http.MethodPost, "/v1/counters/a/increment", "")
	for key, want := range map[string]int64{"a": 42, "b": 7} {
		localtest.Eventually(t, 10*time.Second, func() (bool, string) {
			got, err := c.call(http.MethodGet, "/v1/counters/"+key, "")
			if err != nil || got.status != http.StatusOK {
				return false, fmt.Sprint(got.status, err)
			}
			require.Equal(t, want, *got.Value)
			return key == "a" || got.Synced, "b is not synced"
		})
	}
	require.Equal(t, int64(2), *c.must(t, http.MethodGet, "/v1/counters/a", "").Version)
	s.eventuallyClean(t, 4*sweepInterval)
	require.Equal(t, map[string]int64{"a": 42, "b": 7}, s.rows(t))
	localtest.Eventually(t, 4*sweepInterval, func() (bool, string) {
		n := metric(t, "afterwrite_redis_emptied_total", s.workers...)
		return n == 1, fmt.Sprintf("counted %v times", n)
	})
	var all strings.Builder
	for _, w := range s.workers {
		require.NoError(t, w.Stop())
		all.WriteString(readLog(t, w.Log))
	}
	require.Equal(t, 1, strings.Count(all.String(), "redis was emptied"), all.String())
}

func TestRefusedRowsBecomeDeadLettersAndAllOthersAreFlushed(t *testing.T) {
	t.Parallel()
	s := start(t, "AFTERWRITE_MAX_ATTEMPTS=2", "AFTERWRITE_RETRY_BACKOFF=100ms")
	c := s.client()
	defer c.close()
	_, err := s.DB.Exec(`ALTER TABLE counters ADD CONSTRAINT small CHECK (value < 1000000)`)
	require.NoError(t, err)
	var body strings.Builder
	for i := range 1000 {
		value := i
		if i == 3 || i == 500 || i == 997 {
			value = 1_000_000
		}
		fmt.Fprintf(&body, `,{"op":"set","key":"k%d","value":%d}`, i, value)
	}
	started := time.Now()
	c.must(t, http.MethodPost, "/v1/batch", `{"operations":[`+body.String()[1:]+`]}`)

	localtest.Eventually(t, 5*time.Second, func() (bool, string) {
		n := len(s.rows(t))
		return n == 997, fmt.Sprintf("%d rows", n)
	})
	t.Logf("997 rows after %v", time.Since(started))
	localtest.Eventually(t, 30*time.Second, func() (bool, string) {
		backlog, err := s.Backlog(context.Background())
		if err != nil {
			return false, err.Error()
		}
		return backlog.Dead == 3 && backlog.Dirty == 0 && s.archived(t) == 3, fmt.Sprintf("%+v, %d archived", backlog, s.archived(t))
	})
	tasksGivenUp, err := s.inspector.ListArchivedTasks(tasks.QueueRetry)
	require.NoError(t, err)
	for _, task := range tasksGivenUp {
		require.Contains(t, task.LastErr, `"small"`)
	}
}
