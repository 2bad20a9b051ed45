//go:build million

package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/proof/world"
)

const (
	entries = 1_000_000
	readers = 64
)

// Redis restarts with a million clean entries, of which some lack a write that Postgres has. Each is checked at its first read.
func TestReadsOfAMillionEntriesAfterARestart(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.fill(t)
	hot := zipf()

	t.Logf("steady, all keys:      %v", s.read(t, once(), 20*time.Second, nil))
	t.Logf("steady, hot keys:      %v", s.read(t, hot, 5*time.Second, nil))

	s.execute(t, `UPDATE counters SET value = 2, version = 2 WHERE key LIKE '%00'`) // see newest
	s.restartRedis(t)
	hotPass := s.read(t, hot, 5*time.Second, newest)
	t.Logf("restarted, hot keys:   %v", hotPass)
	s.restartRedis(t)
	pass := s.read(t, once(), 8*time.Minute, newest)
	t.Logf("restarted, all keys:   %v", pass)
	for i, second := range pass.seconds[:min(5, len(pass.seconds))] {
		t.Logf("  second %d:            %v", i+1, second)
	}
	require.Equal(t, int64(entries), pass.reads)
	again := s.read(t, once(), 20*time.Second, newest)
	t.Logf("checked, all keys:     %v", again)
	// A read that gets no row within 100 ms takes the entry as it is.
	require.LessOrEqual(t, pass.rows+again.rows, 1.05*entries, "each entry is checked once")
	require.LessOrEqual(t, float64(pass.old+again.old), max(0, entries-pass.rows-again.rows)+entries/1000)

	s.restartRedis(t)
	require.NoError(t, s.world.Postgres.Stop(t.Context()))
	t.Logf("postgres stopped:      %v", s.read(t, once(), 10*time.Second, nil))
	require.NoError(t, s.world.Postgres.Start(t.Context()))
	s.restartRedis(t)
	thaw := s.freezePostgres(t)
	frozenPass := s.readUncounted(t, once(), 10*time.Second, nil)
	thaw()
	t.Logf("postgres frozen:       %v", frozenPass)
}

// fill creates a million rows and clean entries, each with value 1 and version 1.
func (s *system) fill(t *testing.T) {
	t.Helper()
	require.NoError(t, s.Reset(t.Context(), entries))
	s.execute(t, `UPDATE counters SET value = 1, version = 1`)
	require.NoError(t, s.Settle(t.Context()))
	shards, err := cache.ChooseShards(t.Context(), s.Redis, "", cache.DefaultShards, false)
	require.NoError(t, err)
	c := cache.New(s.Redis, cache.Options{Shards: shards, CleanTTL: time.Hour})
	_, err = c.Hydrate(t.Context(), firstOfEachShard(c)) // opens the epochs that the tokens name
	require.NoError(t, err)
	for from := 0; from < entries; from += 10_000 {
		tokens, err := c.Tokens(t.Context())
		require.NoError(t, err)
		bases := make([]cache.Base, 10_000)
		for i := range bases {
			key := counter.Key(world.Key(from + i))
			bases[i] = cache.Base{Key: key, Found: true, Row: counter.Row{Key: key, Value: 1, Version: 1}, Token: tokens[c.Shard(key)]}
		}
		_, err = c.Hydrate(t.Context(), bases)
		require.NoError(t, err)
	}
	n, err := s.Redis.DBSize(t.Context()).Result()
	require.NoError(t, err)
	require.GreaterOrEqual(t, n, int64(entries))
}

func firstOfEachShard(c *cache.Cache) (bases []cache.Base) {
	known := make(map[counter.Shard]bool)
	for i := 0; len(known) < c.Shards(); i++ {
		if key := counter.Key(world.Key(i)); !known[c.Shard(key)] {
			known[c.Shard(key)] = true
			bases = append(bases, cache.Base{Key: key, Token: "none"})
		}
	}
	return bases
}

func (s *system) execute(t *testing.T, statement string) {
	t.Helper()
	_, err := s.DB.Exec(statement)
	require.NoError(t, err)
}

func (s *system) restartRedis(t *testing.T) {
	t.Helper()
	require.NoError(t, s.world.Redis.Stop(t.Context()))
	require.NoError(t, s.world.Redis.Start(t.Context()))
	c := s.client()
	defer c.close()
	require.NoError(t, world.Await(t.Context(), time.Minute, "the api reaches redis", func(context.Context) (bool, error) {
		got, err := c.call(http.MethodGet, "/v1/counters/none", "")
		return err == nil && got.status == http.StatusNotFound, nil
	}))
}

// once returns each key once, in an order without locality.
func once() func() (int, bool) {
	var next atomic.Int64
	return func() (int, bool) {
		i := int(next.Add(1) - 1)
		return i * 7919 % entries, i < entries
	}
}

// zipf returns a few keys most of the time.
func zipf() func() (int, bool) {
	var mu sync.Mutex
	z := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.1, 10, entries-1) //nolint:gosec // repeatable, and no secret
	return func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		return int(z.Uint64()) * 7919 % entries, true
	}
}

// newest returns the value that Postgres has.
func newest(i int) int64 {
	if i%100 == 0 {
		return 2
	}
	return 1
}

// pass is the result of reading many counters.
type pass struct {
	second

	seconds []second
	took    time.Duration
	old     int64 // reads of a state older than Postgres's

	queries, rows float64 // of Postgres
	postgres      time.Duration
}

// reading returns how many queries and rows Postgres has counted; 0 if it does not answer. A backend reports after 10 s without work.
func (s *system) reading(t *testing.T) (queries, rows float64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if s.DB.PingContext(ctx) != nil {
		return 0, 0
	}
	require.NoError(t, world.Sleep(t.Context(), 11*time.Second))
	require.NoError(t, s.DB.QueryRow(`SELECT xact_commit, (SELECT idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'counters')
		FROM pg_stat_database WHERE datname = current_database()`).Scan(&queries, &rows))
	return queries, rows
}

// postgres returns the processes of Postgres.
func (s *system) postgres(t *testing.T) []procfs.ProcStat {
	t.Helper()
	all, err := procfs.AllProcs()
	require.NoError(t, err)
	var found []procfs.ProcStat
	for _, p := range all {
		if stat, err := p.Stat(); err == nil && (stat.PID == s.world.Postgres.Pid() || stat.PPID == s.world.Postgres.Pid()) {
			found = append(found, stat)
		}
	}
	return found
}

// postgresCPU returns the CPU time that Postgres has used since its start.
func (s *system) postgresCPU(t *testing.T) (used time.Duration) {
	t.Helper()
	for _, p := range s.postgres(t) {
		used += time.Duration(int(p.UTime+p.STime)+p.CUTime+p.CSTime) * 10 * time.Millisecond // sysconf(_SC_CLK_TCK) is 100
	}
	return used
}

// freezePostgres makes Postgres hang until thaw is called.
func (s *system) freezePostgres(t *testing.T) (thaw func()) {
	t.Helper()
	frozen := s.postgres(t)
	thaw = sync.OnceFunc(func() {
		for _, p := range frozen {
			_ = syscall.Kill(p.PID, syscall.SIGCONT)
		}
	})
	t.Cleanup(thaw)
	for _, p := range frozen {
		require.NoError(t, syscall.Kill(p.PID, syscall.SIGSTOP))
	}
	return thaw
}

type second struct {
	reads         int64
	p50, p99, max time.Duration
}

func (s second) String() string {
	return fmt.Sprintf("%7d reads, p50 %v, p99 %v, max %v", s.reads, s.p50.Round(10*time.Microsecond), s.p99.Round(10*time.Microsecond),
		s.max.Round(100*time.Microsecond))
}

func (p pass) String() string {
	rate := func(n float64) float64 { return n / p.took.Seconds() }
	return fmt.Sprintf("%v, %d old, in %v: %.0f reads/s; postgres %.0f queries/s, %.0f rows/s, %.2f of a core", p.second, p.old,
		p.took.Round(time.Millisecond), rate(float64(p.reads)), rate(p.queries), rate(p.rows), p.postgres.Seconds()/p.took.Seconds())
}

// read is readUncounted with the work of Postgres.
func (s *system) read(t *testing.T, keys func() (int, bool), bound time.Duration, want func(i int) int64) pass {
	t.Helper()
	queries, rows := s.reading(t)
	cpu := s.postgresCPU(t)
	p := s.readUncounted(t, keys, bound, want)
	p.postgres = s.postgresCPU(t) - cpu
	if later, more := s.reading(t); later > 0 {
		p.queries, p.rows = later-queries, more-rows
	}
	return p
}

// readUncounted reads counters over 64 connections until keys are used up or the time is over. Every read must succeed.
func (s *system) readUncounted(t *testing.T, keys func() (int, bool), bound time.Duration, want func(i int) int64) pass {
	t.Helper()
	type timed struct{ at, took time.Duration }
	c, began := s.client(), time.Now()
	defer c.close()
	all, old := make([][]timed, readers), atomic.Int64{}
	var group sync.WaitGroup
	for r := range readers {
		group.Go(func() {
			for time.Since(began) < bound {
				i, more := keys()
				if !more {
					return
				}
				sent := time.Now()
				got, err := c.call(http.MethodGet, "/v1/counters/"+url.PathEscape(world.Key(i)), "")
				all[r] = append(all[r], timed{sent.Sub(began), time.Since(sent)})
				if err == nil && got.Value != nil && want != nil && *got.Value < want(i) {
					old.Add(1)
				}
				if err != nil || got.Value == nil {
					t.Errorf("read %s: %+v %v", world.Key(i), got, err)
					return
				}
			}
		})
	}
	group.Wait()
	p := pass{took: time.Since(began), old: old.Load()}
	var times []time.Duration
	bySecond := make(map[int][]time.Duration)
	for _, part := range all {
		for _, one := range part {
			times = append(times, one.took)
			bySecond[int(one.at.Seconds())] = append(bySecond[int(one.at.Seconds())], one.took)
		}
	}
	p.second = summarize(times)
	for i := range len(bySecond) {
		p.seconds = append(p.seconds, summarize(bySecond[i]))
	}
	return p
}

func summarize(times []time.Duration) second {
	slices.Sort(times)
	n := len(times)
	if n == 0 {
		return second{}
	}
	return second{reads: int64(n), p50: times[n/2], p99: times[n*99/100], max: times[n-1]}
}
