package convert_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/convert"
	"github.com/afterwrite/afterwrite/internal/health"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

var errDied = errors.New("the process has died")

// death simulates the death of a process after some calls: before the last call reaches Redis, or before its reply.
type death struct {
	calls   atomic.Int64 // calls that are left
	answers bool         // Redis carries out the last call
}

func (*death) DialHook(next redis.DialHook) redis.DialHook { return next }

func (d *death) call(do func() error) error {
	left := d.calls.Add(-1)
	if left < 0 {
		return errDied
	}
	err := do()
	if left == 0 && d.answers {
		return errDied
	}
	return err
}

func (d *death) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		return d.call(func() error { return next(ctx, cmd) })
	}
}

func (d *death) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		return d.call(func() error { return next(ctx, cmds) })
	}
}

// process returns options with a client of their own, which may die.
func (b *testBundle) process(t *testing.T, dies *death) convert.Options {
	t.Helper()
	options := b.options()
	options.Redis = connect(t, b.url)
	if dies != nil {
		options.Redis.AddHook(dies)
	}
	return options
}

// expire deletes the lease of a dead process, as its TTL would.
func (b *testBundle) expire(t *testing.T) {
	t.Helper()
	require.NoError(t, b.redis.Del(t.Context(), "{aw:meta}:convert").Err())
}

// convertDying converts with processes that die after the given number of calls, or somewhat later, one after the other.
func (b *testBundle) convertDying(t *testing.T, calls int64) (deaths int) {
	t.Helper()
	for ; ; deaths++ {
		require.Less(t, deaths, 1000)
		dies := &death{answers: deaths%2 == 0}
		dies.calls.Store(calls + int64(deaths))
		_, err := convert.Run(t.Context(), b.process(t, dies))
		if err == nil { // or its last call was the last of all, and its answer was lost
			return deaths
		}
		require.ErrorIs(t, err, errDied)
		b.expire(t)
	}
}

func TestAnInterruptedConversionContinues(t *testing.T) {
	t.Parallel()
	whole := setup(t)
	whole.convert(t, 16)
	want := whole.dump(t)
	for _, calls := range []int64{1, 53, 97} {
		t.Run(strconv.FormatInt(calls, 10), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			t.Logf("%d deaths", b.convertDying(t, calls))
			b.cache(t, 16)
			require.Equal(t, want, b.dump(t))
		})
	}
}

func TestOnlyOneOfSeveralConvertersConverts(t *testing.T) {
	t.Parallel()
	whole := setup(t)
	whole.convert(t, 16)
	b := setup(t)
	var entries [3]int64
	var running sync.WaitGroup
	for i := range entries {
		options := b.process(t, nil)
		running.Go(func() {
			done, err := convert.Run(t.Context(), options)
			if err == nil {
				entries[i] = done.Entries
			}
		})
	}
	running.Wait()
	b.cache(t, 16)
	require.Equal(t, whole.dump(t), b.dump(t))
	converted := 0
	for _, n := range entries {
		if n > 0 {
			converted++
		}
	}
	require.Equal(t, 1, converted, entries)
}

func TestAnotherConverterTakesOverWhenTheFirstDies(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.NoError(t, b.redis.Set(t.Context(), "{aw:meta}:convert", "pid 1 on elsewhere", 3*time.Second).Err())
	b.convert(t, 16)
	require.Contains(t, b.log.String(), `who="pid 1 on elsewhere"`)
	require.Contains(t, b.log.String(), "has layout 3 now")
}

// stall makes a process wait before a call of convert.lua until it is released.
type stall struct {
	arrived, release chan struct{}
	once             sync.Once
	what             string
}

func (*stall) DialHook(next redis.DialHook) redis.DialHook { return next }

func (*stall) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (s *stall) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		for _, arg := range cmd.Args() {
			if arg == s.what {
				s.once.Do(func() {
					close(s.arrived)
					<-s.release
				})
			}
		}
		return next(ctx, cmd)
	}
}

func newStall(what string) *stall {
	return &stall{arrived: make(chan struct{}), release: make(chan struct{}), what: what}
}

// runStalled runs a converter that stalls and loses its lease. After its release the channel gets its error.
func (b *testBundle) runStalled(t *testing.T, s *stall) <-chan error {
	t.Helper()
	options := b.process(t, nil)
	options.Redis.AddHook(s)
	ended := make(chan error, 1)
	go func() {
		_, err := convert.Run(t.Context(), options)
		ended <- err
	}()
	<-s.arrived
	b.expire(t)
	return ended
}

func TestAStalledConverterChangesNothingAfterTheEnd(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := newStall("move")
	ended := b.runStalled(t, s)
	b.convert(t, cache.DefaultShards)
	before := b.dump(t)
	close(s.release)
	require.ErrorContains(t, <-ended, "CONVERTED")
	require.Equal(t, before, b.dump(t))
}

func TestRunFailsAndNamesRunningProcessesOfTheOldVersion(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var running sync.WaitGroup
	beater := health.NewReporter(health.ReporterOptions{
		Redis: b.redis, Role: health.RoleAPI, Version: "v0.9", Address: "127.0.0.1:1", Logger: b.options().Logger, Counted: prometheus.NewRegistry(),
	})
	running.Go(func() { beater.Run(ctx) })
	_, err := convert.Run(t.Context(), b.options())
	var refused *convert.RunningError
	require.ErrorAs(t, err, &refused)
	require.Regexp(t, `api v0\.9 on \S+ \(pid \d+\): stop them`, err.Error())
	noted := b.redis.HGetAll(t.Context(), "aw:meta").Val()
	require.Equal(t, "2", noted["layout"])
	require.NotContains(t, noted, "conversion")

	cancel()
	running.Wait()
	b.convert(t, 16)
}

func TestRunWaitsForTheHeartbeatOfAKilledProcessToExpire(t *testing.T) {
	t.Parallel()
	b := setup(t)
	at := time.Now().Add(-3 * time.Second).UnixMilli()
	require.NoError(t, b.redis.HSet(t.Context(), health.HeartbeatKey, "killed", strconv.FormatInt(at, 10)+` {"role":"worker"}`).Err())
	b.convert(t, 16)
	require.Contains(t, b.log.String(), "waiting for processes of the old version to end")
}

// An api of the previous version read the layout just before it changed, and sends its first heartbeat.
func TestAProcessThatStartsMeanwhileStopsTheConversion(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ended := make(chan error, 1)
	go func() {
		_, err := convert.Run(t.Context(), b.options())
		ended <- err
	}()
	localtest.Eventually(t, patience, func() (bool, string) {
		layout := b.redis.HGet(t.Context(), "aw:meta", "layout").Val()
		return layout == "2>3", "the layout is " + layout
	})
	at := strconv.FormatInt(time.Now().UnixMilli(), 10)
	require.NoError(t, b.redis.HSet(t.Context(), health.HeartbeatKey, "new", at+` {"role":"api"}`).Err())
	var refused *convert.RunningError
	require.ErrorAs(t, <-ended, &refused)
	require.Equal(t, "2", b.redis.HGet(t.Context(), "aw:meta", "layout").Val())
}

func TestAwaitWaitsForTheConversion(t *testing.T) {
	t.Parallel()
	b := setup(t)
	needed, err := convert.Needed(t.Context(), b.redis)
	require.NoError(t, err)
	require.True(t, needed)
	ended := make(chan error, 1)
	go func() { ended <- convert.Await(t.Context(), b.redis, b.options().Logger) }()
	localtest.Eventually(t, patience, func() (bool, string) {
		return strings.Contains(b.log.String(), "waiting for a worker"), "it does not say that it waits"
	})
	b.convert(t, 16)
	require.NoError(t, <-ended)
	needed, err = convert.Needed(t.Context(), b.redis)
	require.NoError(t, err)
	require.False(t, needed)
	require.NoError(t, convert.Await(t.Context(), b.redis, b.options().Logger))
}

func TestRunDoesNotChangeARedisOfAnotherLayout(t *testing.T) {
	t.Parallel()
	for _, layout := range []string{"", "1", "3", "4"} {
		b := setup(t)
		require.NoError(t, b.redis.FlushDB(t.Context()).Err())
		want := map[string]string{}
		if layout != "" {
			want = map[string]string{"layout": layout}
			require.NoError(t, b.redis.HSet(t.Context(), "aw:meta", want).Err())
		}
		done, err := convert.Run(t.Context(), b.options())
		require.NoError(t, err)
		require.False(t, done.Done)
		require.Equal(t, want, b.redis.HGetAll(t.Context(), "aw:meta").Val())
		require.NoError(t, convert.Await(t.Context(), b.redis, b.options().Logger))
	}
}
