package dashboard_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/dashboard/auth"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// until waits for an event whose part contains text. Earlier events must not report that no process is running.
func (v *viewer) until(t *testing.T, part, text string) {
	t.Helper()
	for range 40 { // one event a second
		e := v.next(t)
		require.NotContains(t, e.Parts["state"], "not running")
		require.NotContains(t, e.Parts["state"], "No api")
		require.NotContains(t, e.Parts["state"], "No scheduler")
		require.NotContains(t, e.Parts["processes"], "gone for")
		if strings.Contains(e.Parts[part], text) {
			return
		}
	}
	require.Fail(t, "no event has "+text)
}

func TestWorkersAreNotReportedMissingWhileRedisRefusesWrites(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	obstacle := filepath.Join(dir, "taken", "x") // in the way of the file that Redis saves to
	for name, test := range map[string]struct {
		options local.RedisOptions
		refuse  func(*testing.T, redis.UniversalClient)
		mend    func(*testing.T, redis.UniversalClient)
		state   string
	}{
		"it cannot save": {
			local.RedisOptions{Dir: dir, Args: []string{"--save", "3600 1000000", "--dbfilename", "taken"}},
			func(t *testing.T, client redis.UniversalClient) {
				t.Helper()
				require.NoError(t, os.MkdirAll(obstacle, 0o700))
				require.NoError(t, client.BgSave(t.Context()).Err())
			},
			func(t *testing.T, client redis.UniversalClient) {
				t.Helper()
				require.NoError(t, os.RemoveAll(filepath.Dir(obstacle)))
				require.NoError(t, client.BgSave(t.Context()).Err())
			},
			"Redis refuses writes, since it cannot save its data; 0 keys are waiting.",
		},
		"it has become a replica": {
			local.RedisOptions{},
			func(t *testing.T, client redis.UniversalClient) {
				t.Helper()
				require.NoError(t, client.ReplicaOf(t.Context(), "127.0.0.1", "1").Err())
			},
			func(t *testing.T, client redis.UniversalClient) {
				t.Helper()
				require.NoError(t, client.ReplicaOf(t.Context(), "no", "one").Err())
			},
			"Redis fails over: it refuses writes, since it is a replica now; 0 keys are waiting.",
		},
		"it wants replicas": {
			local.RedisOptions{},
			func(t *testing.T, client redis.UniversalClient) {
				t.Helper()
				require.NoError(t, client.ConfigSet(t.Context(), "min-replicas-to-write", "1").Err())
			},
			func(t *testing.T, client redis.UniversalClient) {
				t.Helper()
				require.NoError(t, client.ConfigSet(t.Context(), "min-replicas-to-write", "0").Err())
			},
			"Redis refuses writes, since it has too few replicas; 0 keys are waiting.",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, _ := setupOwn(t, test.options)
			b.beat(t)
			b.run(t)
			v := watch(t, b.stream(t)+"/live?page=overview&every=1")
			v.until(t, "state", "Keeping up")

			test.refuse(t, b.redis)
			v.until(t, "state", test.state)
			v.until(t, "processes", "silent for")
			v.until(t, "tiles", "the apis could not say")
			v.until(t, "facts", "refuses writes")
			require.NotContains(t, b.lines.String(), "no samples can be taken")

			test.mend(t, b.redis)
			v.until(t, "state", "Keeping up")
		})
	}
}

func TestWorkersAreNotReportedMissingDuringARedisOutage(t *testing.T) {
	t.Parallel()
	b, server := setupOwn(t, local.RedisOptions{AppendOnly: true, AppendFsync: "always"})
	b.beat(t)
	b.run(t)
	v := watch(t, b.stream(t)+"/live?page=overview&every=1")
	v.until(t, "state", "Keeping up")

	b.dirty(t, "00", 300, time.Now().Add(-time.Minute)) // no worker flushes them
	server.Kill()
	v.until(t, "state", "Redis has not answered for 7")
	require.NoError(t, server.Start(t.Context()))
	v.until(t, "state", "Redis is back; 300 keys are waiting.")
	require.NoError(t, b.redis.Del(t.Context(), "{aw:00}:open").Err())
	v.until(t, "state", "Keeping up")
}

func TestRedisWithoutPermissionIsNotReportedAsDown(t *testing.T) {
	t.Parallel()
	b, _ := setupOwn(t, local.RedisOptions{})
	b.run(t)
	require.NoError(t, b.redis.Do(t.Context(), "ACL", "SETUSER", "default", "-exists").Err())
	b.eventually(t, "/", func(page string) bool {
		return strings.Contains(page, "Redis denies commands or keys, and has not served us for") && strings.Contains(page, "does not serve")
	})
	require.NoError(t, b.redis.Do(t.Context(), "ACL", "SETUSER", "default", "+exists").Err())
	b.eventually(t, "/", func(page string) bool { return !strings.Contains(page, "does not permit") })
}

func TestSignOutDuringARedisOutageTakesEffectEverywhere(t *testing.T) {
	t.Parallel()
	d, server := setupOwn(t, local.RedisOptions{AppendOnly: true, AppendFsync: "always"})
	here := d.serve(t, false, auth.Options{Users: people()}).as(t, "olga")
	there := &door{address: d.serve(t, false, auth.Options{Users: people()}).address, cookie: here.cookie}
	require.Equal(t, http.StatusOK, there.get(t, "/actions").status)

	require.NoError(t, server.Stop(t.Context()))
	signedOut := here.post(t, "/signout", nil)
	require.Equal(t, http.StatusServiceUnavailable, signedOut.status)
	require.Contains(t, signedOut.body, "You are signed out of this process")
	require.NoError(t, server.Start(t.Context()))

	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		return there.send(t, http.MethodGet, "/actions", "").status == http.StatusUnauthorized, "the other process still accepts the session"
	})
}

// A Redis that hangs keeps connections open and answers nothing, so each read of it would take until its timeout.
func TestPagesAnswerWithTheFindingWhileRedisHangs(t *testing.T) {
	t.Parallel()
	b, server := setupOwn(t, local.RedisOptions{})
	open := b.serve(t, false, auth.Options{})
	signedIn := b.serve(t, false, auth.Options{Users: people()}).as(t, "olga")
	for _, d := range []*door{open, signedIn} {
		localtest.Eventually(t, 10*time.Second, func() (bool, string) {
			page := d.get(t, "/").body
			return !strings.Contains(page, "Starting"), page
		})
	}
	require.NoError(t, syscall.Kill(server.Pid(), syscall.SIGSTOP))
	t.Cleanup(func() { require.NoError(t, syscall.Kill(server.Pid(), syscall.SIGCONT)) })

	for _, d := range []*door{open, signedIn} {
		localtest.Eventually(t, 10*time.Second, func() (bool, string) {
			page := d.get(t, "/").body
			return strings.Contains(page, "Redis has not answered for"), page
		})
		for _, path := range []string{"/", "/shards", "/requests", "/mappings"} {
			began := time.Now()
			answer := d.get(t, path)
			require.Less(t, time.Since(began), 2*time.Second, path)
			require.Equal(t, http.StatusServiceUnavailable, answer.status, path)
		}
		require.Equal(t, http.StatusOK, d.get(t, "/healthz").status)
	}
}
