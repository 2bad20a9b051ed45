package pulse_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/pulse"
)

const patience = 15 * time.Second

// testBundle is a process that beats.
type testBundle struct {
	redis   redis.UniversalClient
	log     *lockedBuffer
	options pulse.Options
	writes  *prometheus.CounterVec
}

func setup(t *testing.T, client redis.UniversalClient) *testBundle {
	t.Helper()
	registry := prometheus.NewRegistry()
	b := &testBundle{redis: client, log: new(lockedBuffer), writes: prometheus.NewCounterVec(
		prometheus.CounterOpts{Name: "afterwrite_writes_total", Help: "Operations."}, []string{"op"})}
	registry.MustRegister(b.writes)
	b.options = pulse.Options{
		Redis: client, Role: pulse.RoleAPI, Version: "v1", Address: "127.0.0.1:1", Counted: registry,
		Logger: slog.New(slog.NewTextHandler(b.log, nil)), Settings: pulse.Settings{MaxDirty: 7},
	}
	return b
}

// run beats until the test ends, or the returned function is called.
func (b *testBundle) run(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { pulse.NewBeater(b.options).Run(ctx) })
	stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// read returns the pulses now.
func (b *testBundle) read(t *testing.T) []pulse.Pulse {
	t.Helper()
	now, err := b.redis.Time(t.Context()).Result()
	require.NoError(t, err)
	pulses, err := pulse.Read(t.Context(), b.redis, now.UnixMilli())
	require.NoError(t, err)
	return pulses
}

type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func TestAProcessSaysWhatItHasCountedUntilItEnds(t *testing.T) {
	t.Parallel()
	b := setup(t, localtest.Redis(t))
	b.writes.WithLabelValues("increment").Add(3)
	b.writes.WithLabelValues("set").Add(2)
	hindered := prometheus.NewCounter(prometheus.CounterOpts{Name: "afterwrite_hindered_rows_total", Help: "Rows."})
	hindered.Add(4)
	b.options.Counted.(*prometheus.Registry).MustRegister(hindered)
	stop := b.run(t)

	var p pulse.Pulse
	localtest.Eventually(t, patience, func() (bool, string) {
		pulses := b.read(t)
		if len(pulses) == 1 {
			p = pulses[0]
		}
		return p.Uptime > 0, fmt.Sprintf("%+v", pulses)
	})
	require.True(t, p.Alive())
	require.Equal(t, pulse.RoleAPI, p.Role)
	require.EqualValues(t, 5, p.Counts.Writes)
	require.EqualValues(t, 4, p.Counts.Hindered)
	require.EqualValues(t, 7, p.Settings.MaxDirty)
	require.EqualValues(t, -1, p.SweptAgo)
	require.Empty(t, p.Postgres)

	stop()
	require.Empty(t, b.read(t), "it takes its entry along")
}

func TestBeatsGoOnInARedisThatIsFull(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	client, err := cache.Connect(server.URL(), 4)
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	b := setup(t, client)
	require.NoError(t, client.ConfigSet(t.Context(), "maxmemory", "1").Err())
	require.ErrorContains(t, client.Set(t.Context(), "k", "v", 0).Err(), "OOM")
	b.run(t)

	var first, last int64
	localtest.Eventually(t, patience, func() (bool, string) {
		if pulses := b.read(t); len(pulses) == 1 {
			last = pulses[0].At
			if first == 0 {
				first = last
			}
		}
		return last > first, b.log.String()
	})
}

func TestARedisThatIsAwayIsLoggedOnceAndBeatsComeBack(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	client, err := cache.Connect(server.URL(), 4)
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	b := setup(t, client)
	server.Kill()
	b.run(t)
	localtest.Eventually(t, patience, func() (bool, string) {
		return strings.Contains(b.log.String(), "the dashboard is not told"), b.log.String()
	})

	require.NoError(t, server.Start(t.Context()))
	localtest.Eventually(t, patience, func() (bool, string) {
		return strings.Contains(b.log.String(), "is told about this process again"), b.log.String()
	})
	require.Equal(t, 1, strings.Count(b.log.String(), "the dashboard is not told"))
	require.Len(t, b.read(t), 1)
}

func TestThereIsNoRoomForEndlessProcesses(t *testing.T) {
	t.Parallel()
	b := setup(t, localtest.Redis(t))
	for i := range 512 {
		require.NoError(t, b.redis.HSet(t.Context(), pulse.Key, fmt.Sprint("gone", i), "1 {}").Err())
	}
	b.run(t)
	localtest.Eventually(t, patience, func() (bool, string) {
		return strings.Contains(b.log.String(), "too many processes"), b.log.String()
	})

	pulses := b.read(t)
	require.Len(t, pulses, 512)
	require.False(t, pulses[0].Alive())
	require.NoError(t, pulse.Prune(t.Context(), b.redis, pulses))
	localtest.Eventually(t, patience, func() (bool, string) {
		return len(b.read(t)) == 1, b.log.String() // those that are long gone have made room
	})
}

// database is a Postgres that is away until it is asked.
type database struct{ up, asked atomic.Bool }

func (d *database) Up() bool { return d.up.Load() }

func (*database) Quiet() time.Duration { return 0 }

func (d *database) Ping(context.Context) error {
	if d.asked.Swap(true) {
		d.up.Store(true)
	}
	return nil
}

func TestAPostgresThatWasAwayIsAskedUntilItIsBack(t *testing.T) {
	t.Parallel()
	b := setup(t, localtest.Redis(t))
	b.options.Postgres = new(database)
	b.run(t)
	for _, want := range []string{pulse.PostgresDown, pulse.PostgresUp} {
		localtest.Eventually(t, patience, func() (bool, string) {
			pulses := b.read(t)
			return len(pulses) == 1 && pulses[0].Postgres == want, want
		})
	}
}

// idle is a Postgres that has gone away since it was last used, a while ago.
type idle struct{ up atomic.Bool }

func (d *idle) Up() bool { return d.up.Load() }

func (*idle) Quiet() time.Duration { return time.Minute }

func (d *idle) Ping(context.Context) error {
	d.up.Store(false)
	return errors.New("it is away")
}

func TestAPostgresThatNobodyUsesIsAskedWhetherItIsThere(t *testing.T) {
	t.Parallel()
	b := setup(t, localtest.Redis(t))
	postgres := new(idle)
	postgres.up.Store(true)
	b.options.Postgres = postgres
	b.run(t)
	localtest.Eventually(t, patience, func() (bool, string) {
		pulses := b.read(t)
		return len(pulses) == 1 && pulses[0].Postgres == pulse.PostgresDown, "it is said to be up"
	})
}

func TestWhatCannotBeReadIsLeftOut(t *testing.T) {
	t.Parallel()
	b := setup(t, localtest.Redis(t))
	require.NoError(t, b.redis.HSet(t.Context(), pulse.Key, "a", "nonsense", "b", "1 {", "c", `5 {"role":"api"}`).Err())
	pulses := b.read(t)
	require.Len(t, pulses, 1)
	require.Equal(t, "c", pulses[0].ID)
	require.EqualValues(t, 5, pulses[0].At)
}

func TestPruneFindsOutWhyNobodyBeats(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	client, err := cache.Connect(server.URL(), 4)
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	b := setup(t, client)
	require.NoError(t, client.HSet(t.Context(), pulse.Key, "silent", "1 {}").Err())
	pulses := []pulse.Pulse{{ID: "silent", Age: 6 * time.Second}}
	require.NoError(t, pulse.Prune(t.Context(), client, pulses))

	require.NoError(t, client.ConfigSet(t.Context(), "min-replicas-to-write", "1").Err())

	require.Equal(t, "NOREPLICAS", cache.Refusal(pulse.Prune(t.Context(), client, pulses)))
	require.NoError(t, pulse.Prune(t.Context(), client, []pulse.Pulse{{ID: "silent", Age: time.Second}}), "it beats")
	require.Len(t, b.read(t), 1)
}

// beats counts the beats of which Redis hears.
type beats struct{ n atomic.Int64 }

func (*beats) DialHook(next redis.DialHook) redis.DialHook { return next }

func (b *beats) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "evalsha" {
			b.n.Add(1)
		}
		return next(ctx, cmd)
	}
}

func (*beats) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func TestAProcessWithNothingNewToSayBeatsHalfAsOften(t *testing.T) {
	t.Parallel()
	client := localtest.Redis(t)
	b := setup(t, client)
	heard := new(beats)
	client.AddHook(heard)
	began := time.Now()
	b.run(t)
	// The first two say what is new and that it stays so. Of the others every second one is left out: 5 beats take 7 s, not 4.
	localtest.Eventually(t, patience, func() (bool, string) {
		n := heard.n.Load()
		return n >= 5, fmt.Sprintf("%d beats", n)
	})
	require.Greater(t, time.Since(began), 5500*time.Millisecond)
	require.True(t, b.read(t)[0].Alive())

	b.writes.WithLabelValues("increment").Inc()
	told := heard.n.Load()
	localtest.Eventually(t, patience, func() (bool, string) {
		pulses := b.read(t)
		return pulses[0].Counts.Writes == 1, fmt.Sprintf("%+v", pulses)
	})
	require.LessOrEqual(t, heard.n.Load(), told+1, "news is in the next beat")
}
