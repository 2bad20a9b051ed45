package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

const patience = 15 * time.Second

// testBundle is a process that sends heartbeats.
type testBundle struct {
	redis   redis.UniversalClient
	log     *localtest.Buffer
	options ReporterOptions
	writes  *prometheus.CounterVec
}

func setup(t *testing.T, client redis.UniversalClient) *testBundle {
	t.Helper()
	registry := prometheus.NewRegistry()
	b := &testBundle{redis: client, log: new(localtest.Buffer), writes: prometheus.NewCounterVec(
		prometheus.CounterOpts{Name: "afterwrite_writes_total", Help: "Operations."}, []string{"op"})}
	registry.MustRegister(b.writes)
	b.options = ReporterOptions{
		Redis: client, Role: RoleAPI, Version: "v1", Address: "127.0.0.1:1", Counted: registry,
		Logger: slog.New(slog.NewTextHandler(b.log, nil)), Settings: Settings{MaxDirty: 7},
	}
	return b
}

// run sends heartbeats until the test ends, or the returned function is called.
func (b *testBundle) run(t *testing.T) (stop func()) {
	t.Helper()
	return localtest.Run(t, func(ctx context.Context) error {
		NewReporter(b.options).Run(ctx)
		return nil
	})
}

// read returns the heartbeats in Redis.
func (b *testBundle) read(t *testing.T) []Heartbeat {
	t.Helper()
	now, err := b.redis.Time(t.Context()).Result()
	require.NoError(t, err)
	heartbeats, err := ReadHeartbeats(t.Context(), b.redis, "", now.UnixMilli())
	require.NoError(t, err)
	return heartbeats
}

func TestHeartbeatHasTheCountsUntilTheProcessEnds(t *testing.T) {
	t.Parallel()
	b := setup(t, localtest.Redis(t))
	b.writes.WithLabelValues("increment").Add(3)
	b.writes.WithLabelValues("set").Add(2)
	hindered := prometheus.NewCounter(prometheus.CounterOpts{Name: "afterwrite_hindered_rows_total", Help: "Rows."})
	hindered.Add(4)
	b.options.Counted.(*prometheus.Registry).MustRegister(hindered)
	stop := b.run(t)

	var p Heartbeat
	localtest.Eventually(t, patience, func() (bool, string) {
		heartbeats := b.read(t)
		if len(heartbeats) == 1 {
			p = heartbeats[0]
		}
		return p.Uptime > 0, fmt.Sprintf("%+v", heartbeats)
	})
	require.True(t, p.Alive())
	require.Equal(t, RoleAPI, p.Role)
	require.EqualValues(t, 5, p.Counts.Writes)
	require.EqualValues(t, 4, p.Counts.Deferred)
	require.EqualValues(t, 7, p.Settings.MaxDirty)
	require.EqualValues(t, -1, p.SweptAgo)
	require.Empty(t, p.Postgres)

	stop()
	require.Empty(t, b.read(t), "it takes its entry along")
}

func TestHeartbeatsAreSentToAFullRedis(t *testing.T) {
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
		if heartbeats := b.read(t); len(heartbeats) == 1 {
			last = heartbeats[0].At
			if first == 0 {
				first = last
			}
		}
		return last > first, b.log.String()
	})
}

func TestRedisOutageIsLoggedOnceAndHeartbeatsResume(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	client, err := cache.Connect(server.URL(), 4)
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	b := setup(t, client)
	server.Kill()
	b.run(t)
	localtest.Eventually(t, patience, func() (bool, string) {
		return strings.Contains(b.log.String(), "heartbeats cannot be sent"), b.log.String()
	})

	require.NoError(t, server.Start(t.Context()))
	localtest.Eventually(t, patience, func() (bool, string) {
		return strings.Contains(b.log.String(), "heartbeats are sent again"), b.log.String()
	})
	require.Equal(t, 1, strings.Count(b.log.String(), "heartbeats cannot be sent"))
	require.Len(t, b.read(t), 1)
}

func TestProcessesAreBounded(t *testing.T) {
	t.Parallel()
	b := setup(t, localtest.Redis(t))
	for i := range 512 {
		require.NoError(t, b.redis.HSet(t.Context(), HeartbeatKey, fmt.Sprint("gone", i), "1 {}").Err())
	}
	b.run(t)
	localtest.Eventually(t, patience, func() (bool, string) {
		return strings.Contains(b.log.String(), "cannot show this process: there are too many"), b.log.String()
	})

	heartbeats := b.read(t)
	require.Len(t, heartbeats, 512)
	require.False(t, heartbeats[0].Alive())
	require.NoError(t, prune(t.Context(), b.redis, "", heartbeats))
	localtest.Eventually(t, patience, func() (bool, string) {
		return len(b.read(t)) == 1, b.log.String() // old heartbeats were pruned
	})
}

// awayPostgres is down until it is pinged.
type awayPostgres struct{ up, asked atomic.Bool }

func (d *awayPostgres) Up() bool { return d.up.Load() }

func (*awayPostgres) Quiet() time.Duration { return 0 }

func (d *awayPostgres) Ping(context.Context) error {
	if d.asked.Swap(true) {
		d.up.Store(true)
	}
	return nil
}

func TestPostgresIsPingedUntilItIsUpAgain(t *testing.T) {
	t.Parallel()
	b := setup(t, localtest.Redis(t))
	b.options.Postgres = new(awayPostgres)
	b.run(t)
	for _, want := range []string{PostgresDown, PostgresUp} {
		localtest.Eventually(t, patience, func() (bool, string) {
			heartbeats := b.read(t)
			return len(heartbeats) == 1 && heartbeats[0].Postgres == want, want
		})
	}
}

// idlePostgres has been unused for a minute, and went down in that time.
type idlePostgres struct{ up atomic.Bool }

func (d *idlePostgres) Up() bool { return d.up.Load() }

func (*idlePostgres) Quiet() time.Duration { return time.Minute }

func (d *idlePostgres) Ping(context.Context) error {
	d.up.Store(false)
	return errors.New("it is away")
}

func TestIdlePostgresIsPinged(t *testing.T) {
	t.Parallel()
	b := setup(t, localtest.Redis(t))
	postgres := new(idlePostgres)
	postgres.up.Store(true)
	b.options.Postgres = postgres
	b.run(t)
	localtest.Eventually(t, patience, func() (bool, string) {
		heartbeats := b.read(t)
		return len(heartbeats) == 1 && heartbeats[0].Postgres == PostgresDown, "it is said to be up"
	})
}

func TestUndecodableHeartbeatsAreSkipped(t *testing.T) {
	t.Parallel()
	b := setup(t, localtest.Redis(t))
	require.NoError(t, b.redis.HSet(t.Context(), HeartbeatKey, "a", "nonsense", "b", "1 {", "c", `5 {"role":"api"}`).Err())
	heartbeats := b.read(t)
	require.Len(t, heartbeats, 1)
	require.Equal(t, "c", heartbeats[0].ID)
	require.EqualValues(t, 5, heartbeats[0].At)
}

func TestPruneReportsThatRedisRefusesWrites(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	client, err := cache.Connect(server.URL(), 4)
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	b := setup(t, client)
	require.NoError(t, client.HSet(t.Context(), HeartbeatKey, "silent", "1 {}").Err())
	heartbeats := []Heartbeat{{ID: "silent", Age: 6 * time.Second}}
	require.NoError(t, prune(t.Context(), client, "", heartbeats))

	require.NoError(t, client.ConfigSet(t.Context(), "min-replicas-to-write", "1").Err())

	require.Equal(t, "NOREPLICAS", cache.Refusal(prune(t.Context(), client, "", heartbeats)))
	require.NoError(t, prune(t.Context(), client, "", []Heartbeat{{ID: "silent", Age: time.Second}}), "it beats")
	require.Len(t, b.read(t), 1)
}

// beats counts the heartbeats that are sent to Redis.
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

func TestUnchangedHeartbeatsAreSentHalfAsOften(t *testing.T) {
	t.Parallel()
	client := localtest.Redis(t)
	b := setup(t, client)
	heard := new(beats)
	client.AddHook(heard)
	began := time.Now()
	b.run(t)
	// The first two are sent: the change and its first repetition. Then every other one is skipped, so 5 heartbeats take 7 s, not 4.
	localtest.Eventually(t, patience, func() (bool, string) {
		n := heard.n.Load()
		return n >= 5, fmt.Sprintf("%d beats", n)
	})
	require.Greater(t, time.Since(began), 5500*time.Millisecond)
	require.True(t, b.read(t)[0].Alive())

	b.writes.WithLabelValues("increment").Inc()
	told := heard.n.Load()
	localtest.Eventually(t, patience, func() (bool, string) {
		heartbeats := b.read(t)
		return heartbeats[0].Counts.Writes == 1, fmt.Sprintf("%+v", heartbeats)
	})
	require.LessOrEqual(t, heard.n.Load(), told+1, "news is in the next beat")
}
