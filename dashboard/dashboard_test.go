package dashboard_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/dashboard"
	"github.com/afterwrite/afterwrite/internal/access"
	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/tasks"
)

// testBundle is a dashboard on a Redis of its own.
type testBundle struct {
	handler *dashboard.Dashboard
	redis   *redis.Client
	log     *lockedBuffer
}

func migrate(url string) error { return store.MigrateURL(context.Background(), url) }

func setup(t *testing.T, write bool) *testBundle {
	t.Helper()
	return setupOn(t, localtest.Redis(t), write)
}

func setupOn(t *testing.T, client *redis.Client, write bool) *testBundle {
	t.Helper()
	b := &testBundle{redis: client, log: new(lockedBuffer)}
	log := b.logger()
	postgres, err := store.Open(localtest.PostgresURL(t, migrate), store.Options{Logger: log, MaxConns: 4})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, postgres.Close()) })
	b.handler, err = dashboard.New(dashboard.Options{
		Cache: cache.New(b.redis, cache.Options{Shards: 64, CleanTTL: time.Hour}), Redis: b.redis, Store: postgres, Write: write,
		Access: access.Options{Address: "127.0.0.1:8081"}, Version: "v1.2.3", Logger: log,
	})
	require.NoError(t, err)
	return b
}

func (b *testBundle) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b.log, nil)) }

// run takes samples until the test ends, or the returned function is called. It waits for the first.
func (b *testBundle) run(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { b.handler.Run(ctx) })
	stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	b.eventually(t, "/", func(page string) bool { return !strings.Contains(page, "Starting") })
	return stop
}

// eventually waits until the page is as it should be, and returns it.
func (b *testBundle) eventually(t *testing.T, path string, ok func(page string) bool) string {
	t.Helper()
	var page string
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		page = b.get(t, path).Body.String()
		return ok(page), page
	})
	return page
}

// dirty makes n keys of a shard dirty, since the given time.
func (b *testBundle) dirty(t *testing.T, shard string, n int, since time.Time) {
	t.Helper()
	keys := make([]string, n)
	for i := range keys {
		keys[i] = strconv.Itoa(i)
	}
	localtest.OpenEpoch(t, b.redis, shard, since, keys...)
}

// lockedBuffer is a log that is written and read at the same time.
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

func (b *testBundle) do(t *testing.T, method, path string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	request := httptest.NewRequestWithContext(t.Context(), method, path, nil)
	request.Host = "127.0.0.1:8081"
	maps.Copy(request.Header, header)
	answer := httptest.NewRecorder()
	b.handler.ServeHTTP(answer, request)
	return answer
}

func (b *testBundle) get(t *testing.T, path string) *httptest.ResponseRecorder {
	t.Helper()
	return b.do(t, http.MethodGet, path, nil)
}

func TestOverviewSaysThatNoWorkerRuns(t *testing.T) {
	t.Parallel()
	b := setup(t, false)
	b.dirty(t, "07", 1234, time.Now().Add(-95*time.Second))
	require.NoError(t, b.redis.HSet(t.Context(), "{aw:09}:dead", "k", "{}").Err())
	b.run(t)

	answer := b.get(t, "/")

	page := answer.Body.String()
	require.Equal(t, http.StatusOK, answer.Code)
	require.Equal(t, "text/html; charset=utf-8", answer.Header().Get("Content-Type"))
	require.Contains(t, page, "Workers are not running; 1,234 keys are waiting.")
	require.Contains(t, page, "1 min 3")
	require.Contains(t, page, "1 dead letter needs somebody.")
	require.Contains(t, page, `href="/asynq"`)
	require.Contains(t, page, `href="/metrics"`)
	require.Contains(t, page, "v1.2.3")
}

func TestOverviewSaysThatRedisIsAwayWithoutSayingWhereItIs(t *testing.T) {
	t.Parallel()
	b := setup(t, false)
	b.run(t)
	require.NoError(t, b.redis.Close())

	page := b.eventually(t, "/", func(page string) bool { return strings.Contains(page, "Redis has not answered") })

	require.Equal(t, http.StatusServiceUnavailable, b.get(t, "/").Code)
	require.NotContains(t, page, "client is closed")
	require.Equal(t, 1, strings.Count(b.log.String(), "no samples can be taken"), "it is logged once")
}

func TestAHistoryThatCannotBeReadHidesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t, false)
	b.dirty(t, "07", 3, time.Now())
	require.NoError(t, b.redis.Set(t.Context(), "aw:history", "no list", 0).Err())
	b.run(t)

	require.Contains(t, b.get(t, "/").Body.String(), "3 keys are waiting")

	require.NoError(t, b.redis.Del(t.Context(), "aw:history").Err())
	old := time.Now().Add(-time.Minute).UnixMilli()
	require.NoError(t, b.redis.RPush(t.Context(), "aw:history", fmt.Sprintf(`%d {"t":%d,"d":7}`, old/1000, old)).Err())
	v := watch(t, b.serve(t)+"/live?page=overview&every=1")
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		e := v.next(t)
		fresh := watch(t, b.serve(t)+"/live?page=overview&every=1").next(t)
		return len(fresh.Points) > 1 && fresh.Points[0].T == old, e.Parts["state"]
	})
}

func TestShardsShowWhichOneHoldsWhatIsStuck(t *testing.T) {
	t.Parallel()
	b := setup(t, false)
	b.dirty(t, "07", 200, time.Now().Add(-time.Minute))
	b.dirty(t, "63", 1, time.Now())
	b.run(t)

	page := b.get(t, "/shards").Body.String()

	require.Contains(t, page, "201 dirty keys in 64 shards, 3.1 in each")
	require.Contains(t, page, "shard 07 has the most")
	require.Contains(t, page, `<li class="cell heat-3" title="Shard 07: 200 dirty keys, oldest 1 min`)
	require.Contains(t, page, `<li class="cell heat-1" title="Shard 63: 1 dirty key,`)
	require.Equal(t, 64, strings.Count(page, `<th scope="row">`))
}

func TestAShardWithAFewKeysThatAreStuckStandsOut(t *testing.T) {
	t.Parallel()
	b := setup(t, false)
	b.dirty(t, "07", 5, time.Now().Add(-3*time.Hour-time.Minute))
	b.dirty(t, "09", 2, time.Now().Add(-2*time.Hour))
	for _, shard := range []string{"01", "02", "63"} {
		b.dirty(t, shard, 9, time.Now())
	}
	b.run(t)
	require.Contains(t, b.get(t, "/shards").Body.String(), "holds what is stuck: shard 07 has waited longest, for 3 h 1 min.")
}

func TestNoShardStandsOutWhereAllWaitAlike(t *testing.T) {
	t.Parallel()
	b := setup(t, false)
	for i := range 64 {
		b.dirty(t, fmt.Sprintf("%02d", i), 1+i%3, time.Now().Add(-10*time.Minute-time.Duration(i)*time.Second))
	}
	b.run(t)
	require.Contains(t, b.get(t, "/shards").Body.String(), "None stands out.")
}

func TestEveryPageIsInTheNavigationOfEveryOther(t *testing.T) {
	t.Parallel()
	b := setup(t, false)
	for _, path := range []string{"/", "/shards", "/dead", "/keys", "/actions", "/asynq", "/asynq/queues/aw-flush"} {
		page := b.get(t, path).Body.String()
		for _, other := range []string{"/", "/shards", "/dead", "/keys", "/actions", "/asynq"} {
			require.Contains(t, page, `<a href="`+other+`"`, path)
		}
		require.Equal(t, 1, strings.Count(page, `aria-current="page"`), path)
	}
}

func TestNoPageHoldsScriptOrStyleOrLoadsAnythingFromElsewhere(t *testing.T) {
	t.Parallel()
	b := setup(t, false)
	b.run(t)
	for _, path := range []string{"/", "/shards", "/dead", "/keys", "/keys?key=a", "/actions"} {
		page := b.get(t, path).Body.String()
		require.NotRegexp(t, `<script(?: [^>]*)?>[^<]`, page)
		require.NotRegexp(t, `<style| style=| on[a-z]+=`, page)
		require.NotContains(t, page, "://", path)
	}
	require.NotContains(t, b.get(t, "/asynq").Body.String(), "fonts.googleapis.com")
}

func TestStyleIsServed(t *testing.T) {
	t.Parallel()
	answer := setup(t, false).get(t, "/static/style.css")
	require.Equal(t, http.StatusOK, answer.Code)
	require.Contains(t, answer.Header().Get("Content-Type"), "text/css")
}

func TestUnknownPathsAreNotFound(t *testing.T) {
	t.Parallel()
	b := setup(t, false)
	for _, path := range []string{"/index.html", "/x", "/asynqx"} {
		require.Equal(t, http.StatusNotFound, b.get(t, path).Code, path)
	}
}

func TestEveryPageLimitsWhatBrowsersDoWithIt(t *testing.T) {
	t.Parallel()
	b := setup(t, false)
	for _, path := range []string{"/", "/shards", "/live?page=x", "/static/style.css", "/asynq", "/asynq/queues/x", "/asynq/api/queues"} {
		header := b.get(t, path).Header()
		require.Contains(t, header.Get("Content-Security-Policy"), "default-src 'none'", path)
		require.Contains(t, header.Get("Content-Security-Policy"), "frame-ancestors 'none'", path)
		require.Equal(t, "nosniff", header.Get("X-Content-Type-Options"), path)
		require.Equal(t, "DENY", header.Get("X-Frame-Options"), path)
	}
}

func TestThePolicyAllowsExactlyTheScriptsOfAsynqmonsPage(t *testing.T) {
	t.Parallel()
	for _, write := range []bool{false, true} {
		answer := setup(t, write).get(t, "/asynq")
		policy, page := answer.Header().Get("Content-Security-Policy"), answer.Body.String()

		scripts := strings.Split(page, "<script>")[1:]
		require.Len(t, scripts, 2, "asynqmon has changed its page: look at it in a browser")
		for _, script := range scripts {
			text, _, _ := strings.Cut(script, "</script>")
			sum := sha256.Sum256([]byte(text))
			require.Contains(t, policy, "'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'")
		}
		require.NotContains(t, policy, "'unsafe-inline' 'sha256", "scripts are allowed by hash only")
	}
}

// sendTask leaves one task in a queue and returns the path of Asynqmon's call that would delete it.
func (b *testBundle) sendTask(t *testing.T) string {
	t.Helper()
	require.NoError(t, tasks.Send(t.Context(), asynq.NewClientFromRedisClient(b.redis), tasks.SweptDrain(3, 1)))
	return "/asynq/api/queues/" + tasks.QueueFlush + "/pending_tasks/drain:03:1"
}

func TestAsynqmonShowsTheQueues(t *testing.T) {
	t.Parallel()
	b := setup(t, false)
	b.sendTask(t)

	answer := b.get(t, "/asynq/api/queues")

	require.Equal(t, http.StatusOK, answer.Code)
	require.Contains(t, answer.Body.String(), `"queue":"aw-flush"`)
}

func TestAsynqmonIsReadOnlyUnlessToldOtherwise(t *testing.T) {
	t.Parallel()
	b := setup(t, false)
	path := b.sendTask(t)

	require.Equal(t, http.StatusMethodNotAllowed, b.do(t, http.MethodDelete, path, nil).Code)

	infos, err := asynq.NewInspectorFromRedisClient(b.redis).ListPendingTasks(tasks.QueueFlush)
	require.NoError(t, err)
	require.Len(t, infos, 1)
}

func TestAChangeFromAnotherSitesPageIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t, true)
	path := b.sendTask(t)

	for _, header := range []http.Header{
		{"Sec-Fetch-Site": {"cross-site"}},
		{"Sec-Fetch-Site": {"same-site"}},
		{"Origin": {"https://evil.example"}},
		{"Origin": {"null"}},
	} {
		require.Equal(t, http.StatusForbidden, b.do(t, http.MethodDelete, path, header).Code, "%v", header)
	}
}

func TestAChangeFromOurOwnPageIsAllowedWhenWritingIs(t *testing.T) {
	t.Parallel()
	b := setup(t, true)
	path := b.sendTask(t)

	answer := b.do(t, http.MethodDelete, path, http.Header{"Sec-Fetch-Site": {"same-origin"}})

	require.Equal(t, http.StatusNoContent, answer.Code, answer.Body.String())
	infos, err := asynq.NewInspectorFromRedisClient(b.redis).ListPendingTasks(tasks.QueueFlush)
	require.NoError(t, err)
	require.Empty(t, infos)
}

func TestAsynqmonDoesNotSayWhereRedisIs(t *testing.T) {
	t.Parallel()
	b := setup(t, false)
	require.NoError(t, b.redis.Close())

	answer := b.get(t, "/asynq/api/queues")

	require.Equal(t, http.StatusInternalServerError, answer.Code)
	require.Contains(t, answer.Body.String(), "the log of the dashboard process has the reason")
	require.NotContains(t, answer.Body.String(), "client is closed")
	require.Contains(t, b.log.String(), "client is closed")
}
