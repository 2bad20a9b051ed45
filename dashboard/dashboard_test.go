package dashboard_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
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
	handler http.Handler
	redis   *redis.Client
	log     *bytes.Buffer
}

func migrate(url string) error { return store.MigrateURL(context.Background(), url) }

func setup(t *testing.T, write bool) *testBundle {
	t.Helper()
	b := &testBundle{redis: localtest.Redis(t), log: new(bytes.Buffer)}
	log := slog.New(slog.NewTextHandler(b.log, nil))
	postgres, err := store.Open(localtest.PostgresURL(t, migrate), store.Options{Logger: log, MaxConns: 4})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, postgres.Close()) })
	b.handler, err = dashboard.New(dashboard.Options{
		Redis: b.redis, Store: postgres, Write: write, Logger: log,
		Cache:  cache.New(b.redis, cache.Options{Shards: 4, CleanTTL: time.Hour}),
		Access: access.Options{Address: "127.0.0.1:8081"},
	})
	require.NoError(t, err)
	return b
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
	for _, path := range []string{"/", "/static/style.css", "/asynq", "/asynq/queues/x", "/asynq/api/queues"} {
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
