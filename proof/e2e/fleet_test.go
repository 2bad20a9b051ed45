//go:build fleet

package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/proof/world"
)

const (
	flushInterval = time.Second     // AFTERWRITE_FLUSH_INTERVAL's default
	lease         = 5 * time.Second // of a drained shard (drainLease in package worker)
	offset        = 2 * 60 * 60     // s, of a wrong clock
)

// Each of 20,000 keys is written once. Two workers that flush the same epoch would write its rows twice.
func TestFleetFlushesEachKeyOnce(t *testing.T) {
	const keys, connections = 20_000, 8
	for _, workers := range []int{1, 2, 4, 8} {
		for _, apis := range []int{1, 4} {
			t.Run(fmt.Sprintf("%d workers, %d apis", workers, apis), func(t *testing.T) {
				s := stage(t, world.Options{})
				s.scheduler = s.run(t, "scheduler")
				s.workers = s.runMany(t, workers, "worker")
				clients := s.clients(t, s.runMany(t, apis, "api"))
				began := time.Now()
				var group sync.WaitGroup
				for connection := range connections {
					group.Go(func() {
						for i := connection; i < keys; i += connections {
							got, err := clients[i%apis].increment(world.Key(i))
							if err != nil || got.status >= 300 {
								t.Errorf("increment: %+v %v", got, err)
								return
							}
						}
					})
				}
				group.Wait()
				wrote := time.Since(began)
				s.eventuallyClean(t, 4*sweepInterval)
				rows := metric(t, "afterwrite_flushed_rows_total", s.workers...)
				t.Logf("%d keys in %.1f s: %.0f rows flushed, %.3f a key", keys, wrote.Seconds(), rows, rows/keys)
				require.GreaterOrEqual(t, rows, float64(keys))
				require.Less(t, rows/keys, 1.05)
				sum, count, err := s.Sum(t.Context())
				require.NoError(t, err)
				require.Equal(t, [2]int64{keys, keys}, [2]int64{sum, count})
			})
		}
	}
}

// A worker is frozen for a minute under load, with whatever shards it was draining.
func TestFrozenWorkerDelaysItsShardsByItsLeaseAtMost(t *testing.T) {
	s := start(t)
	c := s.client()
	defer c.close()
	l, stop, done := newLedger(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		c.loadInto(l, 10, 2000, forever, stop)
	}()
	before := s.oldest(t, 10*time.Second)
	require.True(t, s.workers[0].Signal(syscall.SIGSTOP))
	frozen := s.oldest(t, time.Minute)
	require.True(t, s.workers[0].Signal(syscall.SIGCONT))
	after := s.oldest(t, 10*time.Second)
	close(stop)
	<-done
	s.eventuallyClean(t, 4*sweepInterval)
	t.Logf("oldest epoch: %v before, %v while a worker was frozen, %v after; %s", before, frozen, after, l)
	require.Less(t, frozen, sweepInterval+lease+2*flushInterval)
	require.Empty(t, l.refused)
	require.Empty(t, l.indeterminate)
	s.requireExact(t, c, l)
}

// The processes' clocks are off by two hours. Flushes must come as early as with right clocks: by tasks, not by sweeps, which come each 30 s
// here; and if the tasks are lost, by the next sweep.
func TestClocksMayBeOff(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "afterwrite")
	require.NoError(t, world.BuildWithClock(t.Context(), dir, path))
	for name, off := range map[string]struct{ api, workers, scheduler int }{
		"right":                   {},
		"api ahead":               {api: offset},
		"api behind":              {api: -offset},
		"workers ahead":           {workers: offset},
		"workers behind":          {workers: -offset},
		"scheduler ahead":         {scheduler: offset},
		"scheduler behind":        {scheduler: -offset},
		"api and workers, apart":  {api: offset, workers: -offset, scheduler: offset},
		"api and workers, apart2": {api: -offset, workers: offset, scheduler: -offset},
	} {
		t.Run(name, func(t *testing.T) {
			const sweep = 30 * time.Second
			s := stage(t, world.Options{Program: path}, "AFTERWRITE_SWEEP_INTERVAL="+sweep.String())
			s.scheduler = s.runAt(t, off.scheduler, "scheduler")
			s.workers = []*world.Process{s.runAt(t, off.workers, "worker"), s.runAt(t, off.workers, "worker")}
			s.api = s.runAt(t, off.api, "api")
			c := s.client()
			defer c.close()
			written := make(map[string]int64)
			write := func(d, pause time.Duration) {
				for until := time.Now().Add(d); time.Now().Before(until); time.Sleep(pause) {
					key := "key" + strconv.Itoa(rand.IntN(300)) //nolint:gosec // a load needs no secret
					c.must(t, "POST", "/v1/counters/"+key+"/increment", "")
					written[key]++
				}
			}
			var group sync.WaitGroup
			var quiet, busy time.Duration
			group.Go(func() { quiet = s.oldest(t, 10*time.Second) })
			write(8*time.Second, 50*time.Millisecond) // few keys: each has a task of its own
			group.Wait()
			group.Go(func() { busy = s.oldest(t, 7*time.Second) })
			write(5*time.Second, 0) // many: drains
			group.Wait()
			s.eventuallyClean(t, 5*time.Second)

			c.must(t, "POST", "/v1/counters/lost/increment", "")
			written["lost"]++
			s.loseTasks(t)
			took := s.eventuallyClean(t, sweep+10*time.Second)
			t.Logf("oldest epoch %v when quiet, %v when busy; without its task flushed after %v", quiet, busy, took)
			require.Less(t, quiet, 4*time.Second)
			require.Less(t, busy, 4*time.Second)
			rows := s.rows(t)
			require.Equal(t, written, rows)
		})
	}
}

// loseTasks deletes all tasks that are not running.
func (s *system) loseTasks(t *testing.T) {
	t.Helper()
	keys, err := s.Redis.Keys(t.Context(), "asynq:*").Result()
	require.NoError(t, err)
	require.NoError(t, s.Redis.Del(t.Context(), keys...).Err())
}

// oldest observes the age of the oldest epoch for d, and returns the largest.
func (s *system) oldest(t *testing.T, d time.Duration) time.Duration {
	t.Helper()
	most := time.Duration(0)
	for until := time.Now().Add(d); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		backlog, err := s.Backlog(t.Context())
		if err != nil {
			t.Errorf("read the backlog: %v", err)
			return most
		}
		most = max(most, backlog.Oldest)
	}
	return most
}

func (s *system) runMany(t *testing.T, n int, sub string) []*world.Process {
	t.Helper()
	all := make([]*world.Process, n)
	for i := range all {
		all[i] = s.run(t, sub)
	}
	return all
}

// runAt starts a process whose clock is off by so many seconds.
func (s *system) runAt(t *testing.T, off int, sub string) *world.Process {
	t.Helper()
	p, err := s.Start(t.Context(), sub, world.ClockOffset+"="+strconv.Itoa(off))
	require.NoError(t, err)
	return p
}

// clients returns a client of each api.
func (s *system) clients(t *testing.T, apis []*world.Process) []*client {
	t.Helper()
	all := make([]*client, len(apis))
	for i, p := range apis {
		s.api = p
		all[i] = s.client()
		t.Cleanup(all[i].close)
	}
	return all
}
