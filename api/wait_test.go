package api_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// flush writes all dirty counters to Postgres, as a worker does.
func (b *bundle) flush(t *testing.T) {
	t.Helper()
	for shard := range counter.Shard(b.Cache.Shards()) {
		epoch, err := b.Cache.Seal(t.Context(), shard, cache.Taking{Owner: "test", Lease: time.Minute})
		require.NoError(t, err)
		keys, _, err := b.Cache.EpochKeys(t.Context(), &epoch, 0, 10_000)
		require.NoError(t, err)
		if len(keys) == 0 {
			continue
		}
		snapshot, err := b.Cache.Read(t.Context(), shard, keys)
		require.NoError(t, err)
		rows := make([]counter.Row, len(keys))
		for i, e := range snapshot.Entries {
			require.False(t, e.BaseUnknown)
			rows[i] = e.Row
		}
		_, err = b.Store.Upsert(t.Context(), rows)
		require.NoError(t, err)
		_, done, err := b.Cache.Commit(t.Context(), &epoch)
		require.NoError(t, err)
		require.True(t, done)
	}
}

// sendAsync sends a request in the background.
func (b *bundle) sendAsync(t *testing.T, method, target, body string, headers ...string) <-chan *answer {
	t.Helper()
	answers := make(chan *answer, 1)
	//nolint:testifylint // send calls require in a goroutine: a failure still fails the test, but does not stop it
	go func() { answers <- b.send(t, method, target, body, headers...) }()
	return answers
}

// eventuallyDirty waits until Redis has n counters that are dirty or dead.
func (b *bundle) eventuallyDirty(t *testing.T, n int64) {
	t.Helper()
	localtest.Eventually(t, patience, func() (bool, string) {
		backlog, err := b.Cache.Backlog(t.Context())
		require.NoError(t, err)
		return backlog.Dirty+backlog.Dead == n, fmt.Sprintf("%d dirty and %d dead counters, not %d", backlog.Dirty, backlog.Dead, n)
	})
}

func TestWritesAndReadsCanWaitForPostgres(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, "read", "7")
	b.put(t, "deleted", "7")
	b.put(t, "b", "1") // b needs an entry: with return=minimal the api does not read a cold key from Postgres
	b.flush(t)
	b.put(t, "read", "8")
	waiting := []<-chan *answer{
		b.sendAsync(t, http.MethodPost, "/v1/counters/a/increment", "", "Prefer: wait=20"),
		b.sendAsync(t, http.MethodPut, "/v1/counters/b", `{"value":5}`, "Prefer: wait=20, return=minimal", "Idempotency-Key: one"),
		b.sendAsync(t, http.MethodDelete, "/v1/counters/deleted", "", "Prefer: wait=20"),
		b.sendAsync(t, http.MethodPost, "/v1/batch", operations(`{"op":"increment","key":"c"}`, `{"op":"delete","key":"never"}`),
			"Prefer: wait=20"),
		b.sendAsync(t, http.MethodGet, "/v1/counters/read?wait=synced&timeout=20s", ""),
		b.sendAsync(t, http.MethodGet, "/v1/counters/read?wait=synced&timeout=20s&version=2", ""),
	}
	b.eventuallyDirty(t, 5)
	for _, w := range waiting {
		require.Empty(t, w, "answered before Postgres has the write")
	}

	b.flush(t)

	got := make([]*answer, len(waiting))
	for i, w := range waiting {
		got[i] = <-w
	}
	require.Equal(t, http.StatusOK, got[0].StatusCode)
	require.JSONEq(t, `{"key":"a","value":1,"version":1,"synced":true}`, got[0].text)
	require.Equal(t, "wait=20", got[0].Header.Get("Preference-Applied"))
	require.Equal(t, http.StatusNoContent, got[1].StatusCode)
	require.Equal(t, "return=minimal, wait=20", got[1].Header.Get("Preference-Applied"))
	require.Equal(t, http.StatusNoContent, got[2].StatusCode)
	require.Equal(t, http.StatusOK, got[3].StatusCode)
	require.Contains(t, got[3].text, `{"key":"c","value":1,"version":1,"synced":true}`)
	for _, read := range got[4:] {
		require.Equal(t, http.StatusOK, read.StatusCode)
		require.JSONEq(t, `{"key":"read","value":8,"version":2,"synced_version":2,"synced":true}`, read.text)
	}
	replay := b.send(t, http.MethodPut, "/v1/counters/b", `{"value":5}`, "Prefer: wait=20", "Idempotency-Key: one")
	require.Equal(t, "true", replay.Header.Get(replayedHeader))
	require.Contains(t, replay.text, `"synced":true`, "a repeated request waits too")
}

func TestWaitThatTimesOutIsAnswered202(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, "a", "1")
	for _, c := range []struct{ method, target, body, prefer, want string }{
		{http.MethodGet, "/v1/counters/a?wait=synced&timeout=1ms", "", "", `{"key":"a","value":1,"version":1,"synced":false}`},
		{http.MethodPost, "/v1/counters/a/increment", "", "wait=1", `{"key":"a","value":2,"version":2,"synced":false}`},
		{http.MethodPut, "/v1/counters/a", `{"value":9}`, "return=minimal, wait=1", `{"key":"a","value":9,"version":3,"synced":false}`},
		{
			http.MethodPost, "/v1/batch", operations(`{"op":"increment","key":"a"}`), "wait=1",
			`{"results":[{"key":"a","value":10,"version":4,"synced":false}]}`,
		},
		{http.MethodDelete, "/v1/counters/a", "", "wait=1", `{"key":"a","deleted":true,"version":5,"synced":false}`},
		{http.MethodGet, "/v1/counters/a?wait=synced&timeout=1ms", "", "", `{"key":"a","deleted":true,"version":5,"synced":false}`},
	} {
		a := b.send(t, c.method, c.target, c.body, "Prefer: "+c.prefer)
		require.Equal(t, http.StatusAccepted, a.StatusCode, c.target)
		require.JSONEq(t, c.want, a.text)
	}
	b.flush(t)
	require.Equal(t, http.StatusNotFound, b.send(t, http.MethodGet, "/v1/counters/a?wait=synced", "").StatusCode)
	require.Equal(t, http.StatusNotFound, b.send(t, http.MethodGet, "/v1/counters/never?wait=synced", "").StatusCode)
}

func TestShutdownAnswersWaitingClients(t *testing.T) {
	t.Parallel()
	b := setup(t)
	waiting := b.sendAsync(t, http.MethodPost, "/v1/counters/a/increment", "", "Prefer: wait=30")
	b.eventuallyDirty(t, 1)
	b.service.StopWaiting()
	a := <-waiting
	require.Equal(t, http.StatusAccepted, a.StatusCode)
	require.False(t, a.value(t).Synced)
}

func TestPreferredWaits(t *testing.T) {
	t.Parallel()
	for prefer, want := range map[string]time.Duration{
		"": 0, "wait=5": 5 * time.Second, `Wait = "7"; x=1`: 7 * time.Second, "wait=0": 0, "wait=31": 30 * time.Second,
		"wait=-1": 0, "wait=5s": 0, "wait": 0, "wait=65536": 30 * time.Second,
		"wait=99999999999": 30 * time.Second, "wait=99999999999999999999": 30 * time.Second, "wait=x": 0, "return=minimal, wait=3": 3 * time.Second,
		"wait=1, wait=2": time.Second,
	} {
		require.Equal(t, want, api.PreferredWait(http.Header{"Prefer": {prefer}}), prefer)
	}
}

func badWaits() []badRequest {
	var all []badRequest
	for query, detail := range map[string]string{
		"wait=committed": "wait must be synced", "wait=": "wait must be synced", "wait=synced&wait=synced": "more than once",
		"wait=synced&version=0": "version must be", "wait=synced&version=x": "version must be",
		"wait=synced&version=1&version=2": "more than once", "wait=synced&timeout=5": "timeout must be",
		"wait=synced&timeout=0s": "timeout must be", "wait=synced&timeout=31s": "timeout must be", "wait=synced&timeout=-1s": "timeout must be",
	} {
		all = append(all, badRequest{
			name: query, method: http.MethodGet, target: "/v1/counters/warm?" + query, status: http.StatusBadRequest,
			code: "invalid_query", detail: detail,
		})
	}
	return all
}

func TestNotDurableSaysThatTheWriteWasApplied(t *testing.T) {
	t.Parallel()
	b := setup(t)
	a := b.send(t, http.MethodPost, "/v1/counters/a/increment", "", "Prefer: durability=Database, wait=1")
	require.Equal(t, http.StatusServiceUnavailable, a.StatusCode)
	require.Equal(t, "not_durable", a.problem(t).Code)
	require.Contains(t, a.problem(t).Detail, "was applied in Redis")
	require.NotEmpty(t, a.Header.Get("Retry-After"))
	require.Equal(t, unsynced("a", 1, 1), b.get(t, "a"))

	waiting := b.sendAsync(t, http.MethodPut, "/v1/counters/a", `{"value":7}`, "Prefer: durability=database, wait=20")
	localtest.Eventually(t, patience, func() (bool, string) { return *b.get(t, "a").Version == 2, "not written" })
	b.flush(t)
	a = <-waiting
	require.Equal(t, http.StatusOK, a.StatusCode, a.text)
	require.True(t, a.value(t).Synced)
	require.Equal(t, "wait=20, durability=database", a.Header.Get("Preference-Applied"))

	a = b.send(t, http.MethodPut, "/v1/counters/a", `{"value":8}`, "Prefer: durability=memory")
	require.Equal(t, http.StatusOK, a.StatusCode, a.text)
	require.Equal(t, "durability=memory", a.Header.Get("Preference-Applied"))
	a = b.send(t, http.MethodPut, "/v1/counters/a", `{"value":9}`, "Prefer: durability=memory, wait=1")
	require.Equal(t, http.StatusAccepted, a.StatusCode, "it waits for Postgres: "+a.text)

	for _, level := range []string{"replica", "disk", "tape", ""} { // this write path supports neither replica nor disk
		a := b.send(t, http.MethodPost, "/v1/batch", operations(good), "Prefer: durability="+level)
		require.Equal(t, http.StatusBadRequest, a.StatusCode, level)
		require.Equal(t, "unsupported_durability", a.problem(t).Code, level)
		if level == "tape" || level == "" {
			require.Contains(t, a.problem(t).Detail, `not "`+level+`"`)
		}
	}
}
