package dashboard_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

// database is a Postgres that is up.
type database struct{}

func (database) Up() bool { return true }

func (database) Quiet() time.Duration       { return 0 }
func (database) Ping(context.Context) error { return nil }

// beat lets a process of each role say that it runs, until the test ends.
func (b *testBundle) beat(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, role := range []string{pulse.RoleAPI, pulse.RoleWorker, pulse.RoleScheduler, pulse.RoleDashboard} {
		options := pulse.Options{Redis: b.redis, Role: role, Counted: prometheus.NewRegistry(), Logger: b.logger()}
		if role == pulse.RoleWorker {
			options.Postgres = database{}
		}
		running.Go(func() { pulse.NewBeater(options).Run(ctx) })
	}
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

// until returns the first event in whose part there is text. Whatever comes before it must not say that nobody runs.
func (v *viewer) until(t *testing.T, part, text string) {
	t.Helper()
	for range 40 { // of one a second
		e := v.next(t)
		require.NotContains(t, e.Parts["state"], "not running")
		require.NotContains(t, e.Parts["state"], "No api")
		require.NotContains(t, e.Parts["state"], "No scheduler")
		require.NotContains(t, e.Parts["processes"], "gone for")
		if strings.Contains(e.Parts[part], text) {
			return
		}
	}
	require.Fail(t, "it never said "+text)
}

func TestARedisThatRefusesWritesIsNotTakenForWorkersThatAreGone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	inTheWay := filepath.Join(dir, "taken", "x") // of the file that it saves to
	for name, test := range map[string]struct {
		options local.RedisOptions
		refuse  func(*testing.T, *redis.Client)
		mend    func(*testing.T, *redis.Client)
		why     string
	}{
		"it cannot save": {
			local.RedisOptions{Dir: dir, Args: []string{"--save", "3600 1000000", "--dbfilename", "taken"}},
			func(t *testing.T, client *redis.Client) {
				t.Helper()
				require.NoError(t, os.MkdirAll(inTheWay, 0o700))
				require.NoError(t, client.BgSave(t.Context()).Err())
			},
			func(t *testing.T, client *redis.Client) {
				t.Helper()
				require.NoError(t, os.RemoveAll(filepath.Dir(inTheWay)))
				require.NoError(t, client.BgSave(t.Context()).Err())
			},
			"it cannot save its data",
		},
		"it has become a replica": {
			local.RedisOptions{},
			func(t *testing.T, client *redis.Client) {
				t.Helper()
				require.NoError(t, client.ReplicaOf(t.Context(), "127.0.0.1", "1").Err())
			},
			func(t *testing.T, client *redis.Client) {
				t.Helper()
				require.NoError(t, client.ReplicaOf(t.Context(), "no", "one").Err())
			},
			"it is a replica",
		},
		"it wants replicas": {
			local.RedisOptions{},
			func(t *testing.T, client *redis.Client) {
				t.Helper()
				require.NoError(t, client.ConfigSet(t.Context(), "min-replicas-to-write", "1").Err())
			},
			func(t *testing.T, client *redis.Client) {
				t.Helper()
				require.NoError(t, client.ConfigSet(t.Context(), "min-replicas-to-write", "0").Err())
			},
			"it has too few replicas",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := localtest.OwnRedis(t, test.options)
			client, err := cache.Connect(server.URL(), 8)
			require.NoError(t, err)
			t.Cleanup(func() { _ = client.Close() })
			b := setupOn(t, client.(*redis.Client), false)
			b.beat(t)
			localtest.Eventually(t, 10*time.Second, func() (bool, string) {
				n := client.HLen(t.Context(), pulse.Key).Val()
				return n == 4, "not all beat"
			})
			b.run(t)
			v := watch(t, b.serve(t)+"/live?page=overview&every=1")
			v.until(t, "state", "Keeping up")

			test.refuse(t, b.redis)
			v.until(t, "state", "Redis refuses writes, since "+test.why+"; 0 keys are waiting.")
			v.until(t, "processes", "silent for")
			v.until(t, "tiles", "the apis could not say")
			v.until(t, "facts", "refuses writes")
			require.NotContains(t, b.log.String(), "no samples can be taken")

			test.mend(t, b.redis)
			v.until(t, "state", "Keeping up")
		})
	}
}

func TestWorkersThatSayNothingWhileRedisIsAwayAreNotTakenForGone(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{AppendOnly: true, AppendFsync: "always"})
	client, err := cache.Connect(server.URL(), 8)
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	b := setupOn(t, client.(*redis.Client), false)
	b.beat(t)
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		n := client.HLen(t.Context(), pulse.Key).Val()
		return n == 4, "not all beat"
	})
	b.run(t)
	v := watch(t, b.serve(t)+"/live?page=overview&every=1")
	v.until(t, "state", "Keeping up")

	b.dirty(t, "00", 300, time.Now().Add(-time.Minute)) // nobody flushes them
	server.Kill()
	v.until(t, "state", "Redis has not answered for 7")
	require.NoError(t, server.Start(t.Context()))
	v.until(t, "state", "Redis is back; 300 keys are waiting.")
	require.NoError(t, b.redis.Del(t.Context(), "{aw:00}:open").Err())
	v.until(t, "state", "Keeping up")
}

func TestARedisThatDoesNotLetUsInIsNotSaidToBeAway(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	client, err := cache.Connect(server.URL(), 8)
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	b := setupOn(t, client.(*redis.Client), false)
	b.run(t)
	require.NoError(t, b.redis.Do(t.Context(), "ACL", "SETUSER", "default", "-exists").Err())
	b.eventually(t, "/", func(page string) bool {
		return strings.Contains(page, "Redis does not permit us what we need, and has not served us for") && strings.Contains(page, "does not serve")
	})
	require.NoError(t, b.redis.Do(t.Context(), "ACL", "SETUSER", "default", "+exists").Err())
	b.eventually(t, "/", func(page string) bool { return !strings.Contains(page, "does not permit") })
}
