package e2e_test

import (
	"database/sql"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// forever is a count that no load reaches.
const forever = 1 << 40

// The api is killed under load: for some keys between the script and the task, for others while it answers. The sweep finds all dirty
// keys.
func TestKilledAPILosesNothing(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := s.client()
	defer c.close()
	stop, done := make(chan struct{}), make(chan *ledger, 1)
	go func() { done <- c.load(20, 3000, forever, stop) }()
	for range 3 {
		written := metric(t, "afterwrite_writes_total", s.api)
		localtest.Eventually(t, 20*time.Second, func() (bool, string) {
			now := metric(t, "afterwrite_writes_total", s.api)
			return now > written+500, fmt.Sprint(now)
		})
		require.True(t, s.api.Kill())
		startAgain(t, s.api)
	}
	close(stop)
	l := <-done
	t.Logf("3 kills: %s", l)
	s.eventuallyClean(t, 4*sweepInterval)
	s.requireExact(t, c, l)
}

// A worker is killed during a flush: its upsert waits for a lock. The other worker flushes the shard again.
func TestKilledWorkerLosesNothing(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := s.client()
	defer c.close()
	stop, done := make(chan struct{}), make(chan *ledger, 1)
	go func() { done <- c.load(10, 300, forever, stop) }()
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		n := len(s.rows(t))
		return n == 300, fmt.Sprintf("%d of 300 keys have a row", n)
	})
	lock := s.lockWhileBothFlush(t)
	require.True(t, s.workers[0].Kill())
	require.NoError(t, lock.Rollback())
	close(stop)
	l := <-done

	took := s.eventuallyClean(t, 3*sweepInterval)
	t.Logf("no key was dirty %v after the kill: %s", took, l)
	s.requireExact(t, c, l)
	require.Zero(t, s.archived(t))
}

// lockWhileBothFlush locks the table of counters, and returns while an upsert of each worker waits for that lock. The upserts wait for
// lock_timeout, 1 s; after that the breakers open. If one worker had nothing to flush in that second, it locks again.
func (s *system) lockWhileBothFlush(t *testing.T) *sql.Tx {
	t.Helper()
	for range 10 {
		lock, err := s.DB.Begin()
		require.NoError(t, err)
		_, err = lock.Exec(`LOCK TABLE counters IN ACCESS EXCLUSIVE MODE`)
		require.NoError(t, err)
		for until := time.Now().Add(2 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
			var waiting int
			require.NoError(t, s.DB.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_stat_activity
				WHERE wait_event_type = 'Lock' AND query LIKE '%INSERT INTO "afterwrite".counters%'`).Scan(&waiting))
			if waiting > 6 { // a worker has at most 6 connections (workerPlan)
				return lock
			}
		}
		require.NoError(t, lock.Rollback())
		s.awaitRows(t)
	}
	t.Fatal("the upserts of both workers never waited for the lock at the same time")
	return nil
}

// awaitRows waits until Postgres is written again: until a value in it has changed.
func (s *system) awaitRows(t *testing.T) {
	t.Helper()
	before := s.rows(t)
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		return !maps.Equal(before, s.rows(t)), "no row has changed"
	})
}

func TestPostgresOutageUnderLoadFailsNoWrite(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := s.client()
	defer c.close()
	stop, done := make(chan struct{}), make(chan *ledger, 1)
	go func() { done <- c.load(10, 2000, forever, stop) }()
	localtest.Eventually(t, 10*time.Second, func() (bool, string) { return len(s.rows(t)) > 100, "no rows yet" })

	require.NoError(t, s.world.Postgres.Stop(t.Context()))
	<-time.After(20 * time.Second) // the length of the outage, not a wait for a condition
	require.NoError(t, s.world.Postgres.Start(t.Context()))
	close(stop)
	l := <-done
	took := s.eventuallyClean(t, 30*time.Second)

	t.Logf("20 s without postgres: %s; clean %v after its return", l, took)
	require.Empty(t, l.indeterminate)
	require.Empty(t, l.refused)
	s.requireExact(t, c, l)
	require.Zero(t, s.archived(t))
}

func TestRedisOutageIsReportedAndNothingIsCountedTwice(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := s.client()
	defer c.close()
	c.must(t, http.MethodPut, "/v1/counters/a", `{"value":1}`)
	s.eventuallyClean(t, 10*time.Second)
	require.NoError(t, s.world.Redis.Stop(t.Context()))

	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		got, err := c.call(http.MethodPost, "/v1/counters/a/increment", "")
		if err != nil {
			return false, err.Error()
		}
		return got.status == http.StatusServiceUnavailable && got.Code == "cache_unavailable", fmt.Sprintf("%+v", got)
	})
	require.NoError(t, s.world.Redis.Start(t.Context()))
	var value int64
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		got, err := c.call(http.MethodPost, "/v1/counters/a/increment", "")
		if err != nil || got.status != http.StatusOK {
			return false, fmt.Sprintf("%+v %v", got, err)
		}
		value = *got.Value
		return true, ""
	})
	s.eventuallyClean(t, 4*sweepInterval)
	require.Equal(t, value, s.rows(t)["a"])
}

func TestBacklogOf200000KeysIsDrained(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := s.client()
	defer c.close()
	const keys, each = 200_000, 10_000
	for from := 0; from < keys; from += each {
		var body strings.Builder
		body.WriteString(`{"operations":[`)
		for i := from; i < from+each; i++ {
			if i > from {
				body.WriteString(",")
			}
			body.WriteString(`{"op":"increment","key":"many` + strconv.Itoa(i) + `"}`)
		}
		body.WriteString(`]}`)
		c.must(t, http.MethodPost, "/v1/batch", body.String())
	}
	took := s.eventuallyClean(t, time.Minute)
	rows := s.rows(t)
	require.Len(t, rows, keys)
	for key, value := range rows {
		require.Equal(t, int64(1), value, key)
	}
	t.Logf("%d keys were clean %v after the last write", keys, took)
}
