package dashboard_test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/dashboard/auth"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/tasks"
)

func TestOverviewReportsThatNoWorkerRuns(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.dirty(t, "07", 1234, time.Now().Add(-95*time.Second))
	require.NoError(t, b.redis.HSet(t.Context(), "{aw:09}:dead", "k", "{}").Err())
	b.run(t)

	answer := b.get(t, "/")

	page := answer.Body.String()
	require.Equal(t, http.StatusOK, answer.Code)
	require.Equal(t, "text/html; charset=utf-8", answer.Header().Get("Content-Type"))
	require.Contains(t, page, "Workers are not running; 1,234 keys are waiting.")
	require.Contains(t, page, "1 min 3")
	require.Contains(t, page, "1 dead letter needs attention.")
	require.Contains(t, page, `href="/asynq"`)
	require.Contains(t, page, `href="/metrics"`)
	require.Contains(t, page, "v1.2.3")
}

func TestOverviewReportsARedisOutageWithoutTheAddress(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.run(t)
	require.NoError(t, b.redis.Close())

	page := b.eventually(t, "/", func(page string) bool { return strings.Contains(page, "Redis has not answered") })

	require.Equal(t, http.StatusServiceUnavailable, b.get(t, "/").Code)
	require.NotContains(t, page, "client is closed")
	require.Equal(t, 1, strings.Count(b.lines.String(), "no samples can be taken"), "it is logged once")
}

func TestUnreadableHistoryHidesNoNumbers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.dirty(t, "07", 3, time.Now())
	require.NoError(t, b.redis.Set(t.Context(), "aw:history", "no list", 0).Err())
	b.run(t)

	require.Contains(t, b.get(t, "/").Body.String(), "3 keys are waiting")

	require.NoError(t, b.redis.Del(t.Context(), "aw:history").Err())
	old := time.Now().Add(-time.Minute).UnixMilli()
	require.NoError(t, b.redis.RPush(t.Context(), "aw:history", fmt.Sprintf(`%d {"t":%d,"d":7}`, old/1000, old)).Err())
	v := watch(t, b.stream(t)+"/live?page=overview&every=1")
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		e := v.next(t)
		fresh := watch(t, b.stream(t)+"/live?page=overview&every=1").next(t)
		return len(fresh.Points) > 1 && fresh.Points[0].T == old, e.Parts["state"]
	})
}

func TestShardsNameTheFullestShard(t *testing.T) {
	t.Parallel()
	b := setup(t)
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

func TestShardWithAFewStuckKeysStandsOut(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.dirty(t, "07", 5, time.Now().Add(-3*time.Hour-time.Minute))
	b.dirty(t, "09", 2, time.Now().Add(-2*time.Hour))
	for _, shard := range []string{"01", "02", "63"} {
		b.dirty(t, shard, 9, time.Now())
	}
	b.run(t)
	require.Contains(t, b.get(t, "/shards").Body.String(), "What stands out: shard 07 has waited longest, for 3 h 1 min.")
}

func TestNoShardStandsOutIfAllWaitEqually(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 64 {
		b.dirty(t, fmt.Sprintf("%02d", i), 1+i%3, time.Now().Add(-10*time.Minute-time.Duration(i)*time.Second))
	}
	b.run(t)
	require.Contains(t, b.get(t, "/shards").Body.String(), "None stands out.")
}

func TestEveryPageLinksToEveryOther(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, path := range []string{"/", "/shards", "/requests", "/dead", "/keys", "/actions", "/asynq", "/asynq/queues/aw-flush"} {
		page := b.get(t, path).Body.String()
		for _, other := range []string{"/", "/shards", "/requests", "/dead", "/keys", "/actions", "/asynq"} {
			require.Contains(t, page, `<a href="`+other+`"`, path)
		}
		require.Equal(t, 1, strings.Count(page, `aria-current="page"`), path)
	}
}

func TestPagesHaveNoInlineScriptOrStyleAndUseNoOtherSite(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.run(t)
	for _, path := range []string{"/", "/shards", "/requests", "/dead", "/keys", "/keys?key=a", "/actions"} {
		page := b.get(t, path).Body.String()
		require.NotRegexp(t, `<script(?: [^>]*)?>[^<]`, page)
		require.NotRegexp(t, `<style| style=| on[a-z]+=`, page)
		require.NotContains(t, page, "://", path)
	}
	require.NotContains(t, b.get(t, "/asynq").Body.String(), "fonts.googleapis.com")
}

func TestStyleIsServed(t *testing.T) {
	t.Parallel()
	answer := setup(t).get(t, "/static/style.css")
	require.Equal(t, http.StatusOK, answer.Code)
	require.Contains(t, answer.Header().Get("Content-Type"), "text/css")
}

func TestUnknownPathsAreNotFound(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, path := range []string{"/index.html", "/x", "/asynqx"} {
		require.Equal(t, http.StatusNotFound, b.get(t, path).Code, path)
	}
}

func TestEveryPageHasSecurityHeaders(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, path := range []string{"/", "/shards", "/live?page=x", "/static/style.css", "/asynq", "/asynq/queues/x", "/asynq/api/queues"} {
		header := b.get(t, path).Header()
		require.Contains(t, header.Get("Content-Security-Policy"), "default-src 'none'", path)
		require.Contains(t, header.Get("Content-Security-Policy"), "frame-ancestors 'none'", path)
		require.Equal(t, "nosniff", header.Get("X-Content-Type-Options"), path)
		require.Equal(t, "DENY", header.Get("X-Frame-Options"), path)
	}
}

func TestPolicyAllowsOnlyTheScriptsOfAsynqmonsPage(t *testing.T) {
	t.Parallel()
	for _, write := range []bool{false, true} {
		b := setup(t)
		b.handler = b.pages(t, write, auth.Options{Address: "127.0.0.1:8081"})
		answer := b.get(t, "/asynq")
		policy, page := answer.Header().Get("Content-Security-Policy"), answer.Body.String()

		scripts := strings.Split(page, "<script>")[1:]
		require.Len(t, scripts, 2, "asynqmon has changed its page: check it in a browser")
		for _, script := range scripts {
			text, _, _ := strings.Cut(script, "</script>")
			sum := sha256.Sum256([]byte(text))
			require.Contains(t, policy, "'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'")
		}
		require.NotContains(t, policy, "'unsafe-inline' 'sha256", "scripts are allowed by hash only")
	}
}

func TestAsynqmonShowsTheQueues(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sendTask(t)

	answer := b.get(t, "/asynq/api/queues")

	require.Equal(t, http.StatusOK, answer.Code)
	require.Contains(t, answer.Body.String(), `"queue":"aw-flush"`)
}

func TestAsynqmonIsReadOnlyByDefault(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := b.sendTask(t)

	require.Equal(t, http.StatusMethodNotAllowed, b.do(t, http.MethodDelete, path, nil).Code)

	infos, err := asynq.NewInspectorFromRedisClient(b.redis).ListPendingTasks(tasks.QueueFlush)
	require.NoError(t, err)
	require.Len(t, infos, 1)
}

func TestChangesFromAnotherSiteAreRejected(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.handler = b.pages(t, true, auth.Options{Address: "127.0.0.1:8081"})
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

func TestChangesFromAsynqmonsPageNeedTheWriteOption(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.handler = b.pages(t, true, auth.Options{Address: "127.0.0.1:8081"})
	path := b.sendTask(t)

	answer := b.do(t, http.MethodDelete, path, http.Header{"Sec-Fetch-Site": {"same-origin"}})

	require.Equal(t, http.StatusNoContent, answer.Code, answer.Body.String())
	infos, err := asynq.NewInspectorFromRedisClient(b.redis).ListPendingTasks(tasks.QueueFlush)
	require.NoError(t, err)
	require.Empty(t, infos)
}

func TestAsynqmonHidesTheRedisAddress(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.NoError(t, b.redis.Close())

	answer := b.get(t, "/asynq/api/queues")

	require.Equal(t, http.StatusInternalServerError, answer.Code)
	require.Contains(t, answer.Body.String(), "the log of the dashboard process has the reason")
	require.NotContains(t, answer.Body.String(), "client is closed")
	require.Contains(t, b.lines.String(), "client is closed")
}
