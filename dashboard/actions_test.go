package dashboard_test

import (
	entities "html"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/dashboard/auth"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/store"
)

func TestRedriveWritesTheRow(t *testing.T) {
	t.Parallel()
	d := setup(t)
	d.work(t)
	_, err := d.store.Upsert(t.Context(), []counter.Row{{Key: "page:home", Value: 7, Version: 1}})
	require.NoError(t, err)
	d.bury(t, "page:home", 17, `violates check constraint "small"`)
	d.bury(t, "page:about", 5, "other")
	olga := d.serve(t, false, auth.Options{Users: people()}).as(t, "olga")

	list := olga.get(t, "/dead")
	require.Equal(t, http.StatusOK, list.status)
	require.Contains(t, list.body, `href="/keys?key=page%3ahome"`)
	require.Contains(t, list.body, "violates check constraint &#34;small&#34;")
	require.Contains(t, list.body, "<strong>&#43;10</strong>", "17 in Redis, 7 in Postgres")

	after := olga.follow(t, olga.post(t, "/dead/redrive", url.Values{"key": {"page:home", "page:about"}, "only": {"page:home"}}))
	require.Contains(t, after.body, "1 redriven; 1 in Postgres now")
	require.NotContains(t, after.body, `href="/keys?key=page%3ahome"`)
	require.Contains(t, after.body, `href="/keys?key=page%3aabout"`, "the button of page:about was not pressed")
	rows, err := d.store.Read(t.Context(), []counter.Key{"page:home"})
	require.NoError(t, err)
	require.Equal(t, int64(17), rows["page:home"].Value)

	asked := olga.post(t, "/dead/redrive", url.Values{"all": {"1"}})
	require.Equal(t, http.StatusOK, asked.status)
	require.Contains(t, asked.body, "Redrive all dead letters?")
	olga.follow(t, olga.post(t, "/dead/redrive", url.Values{"all": {"1"}, "confirm": {"yes"}}))
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		return strings.Contains(olga.get(t, "/dead").body, "There are none."), "there are still dead letters"
	})

	log := olga.get(t, "/actions").body
	require.Contains(t, log, "all dead letters")
	require.Contains(t, log, "page:home")
	require.Contains(t, log, "olga")
}

func TestDiscardDropsExactlyTheShownValues(t *testing.T) {
	t.Parallel()
	d := setup(t)
	_, err := d.store.Upsert(t.Context(), []counter.Row{{Key: "a", Value: 7, Version: 1}})
	require.NoError(t, err)
	d.bury(t, "a", 17, "no")
	olga := d.serve(t, false, auth.Options{Users: people()}).as(t, "olga")

	asked := olga.post(t, "/dead/discard", url.Values{"key": {"a"}})
	require.Equal(t, http.StatusOK, asked.status)
	require.Contains(t, asked.body, "7 again")
	require.Contains(t, asked.body, "(&#43;10 pending)")
	shown := between(t, asked.body, `name="shown" value="`, `"`)

	d.write(t, "a", 18)
	changed := olga.post(t, "/dead/discard", url.Values{"key": {"a"}, "shown": {shown}, "confirm": {"yes"}})
	require.Contains(t, changed.body, "It has changed since it was shown to you")
	_, err = d.operator.Get(t.Context(), "a")
	require.NoError(t, err, "it is still dead")

	shown = between(t, changed.body, `name="shown" value="`, `"`)
	after := olga.follow(t, olga.post(t, "/dead/discard", url.Values{"key": {"a"}, "shown": {shown}, "confirm": {"yes"}}))
	require.Contains(t, after.body, "discarded 18 (version 3); the counter is now 7 (version 4)")
	require.Contains(t, after.body, "There are none.")
}

func TestDeadLetterNumbersHaveThousandsSeparators(t *testing.T) {
	t.Parallel()
	d := setup(t)
	_, err := d.store.Upsert(t.Context(), []counter.Row{{Key: "a", Value: 1_000_000, Version: 12_345}})
	require.NoError(t, err)
	d.bury(t, "a", 2_234_567, "no")
	olga := d.serve(t, false, auth.Options{})

	list := olga.get(t, "/dead").body
	require.Contains(t, list, "<strong>&#43;1,234,567</strong>")
	require.Contains(t, list, "v12,345")
	asked := olga.post(t, "/dead/discard", url.Values{"key": {"a"}})
	require.Contains(t, asked.body, "(&#43;1,234,567 pending)")
	shown := between(t, asked.body, `name="shown" value="`, `"`)
	after := olga.follow(t, olga.post(t, "/dead/discard", url.Values{"key": {"a"}, "shown": {shown}, "confirm": {"yes"}}))
	require.Contains(t, after.body, "discarded 2,234,567 (version 12,346); the counter is now 1,000,000 (version 12,347)")
}

// The audit log is the only record of the discarded values.
func TestEachOfSeveralDiscardsIsRecorded(t *testing.T) {
	t.Parallel()
	d := setup(t)
	keys := []string{"a", "b", "c"}
	for i, key := range keys {
		d.bury(t, counter.Key(key), int64(17+i), "no")
	}
	olga := d.serve(t, false, auth.Options{Users: people()}).as(t, "olga")
	asked := olga.post(t, "/dead/discard", url.Values{"key": keys})
	form := url.Values{"key": keys, "confirm": {"yes"}}
	for rest := asked.body; ; {
		_, after, more := strings.Cut(rest, `name="shown" value="`)
		if !more {
			break
		}
		shown, after, _ := strings.Cut(after, `"`)
		form.Add("shown", entities.UnescapeString(shown))
		rest = after
	}
	require.Len(t, form["shown"], 3)

	after := olga.follow(t, olga.post(t, "/dead/discard", form))
	require.Contains(t, after.body, "discarded 3, kept 0")

	actions, err := d.store.Actions(t.Context(), 0, 10)
	require.NoError(t, err)
	discarded := make(map[string]string)
	for _, a := range actions {
		require.NotNil(t, a.Outcome)
		discarded[a.Target] = *a.Outcome
	}
	for i, key := range keys {
		require.Contains(t, discarded[key], "discarded "+strconv.Itoa(17+i)+" (version")
	}
}

// While Postgres hangs, a page still shows the data from Redis, and must not blame Redis.
func TestPagesReportThatPostgresHangs(t *testing.T) {
	t.Parallel()
	for page, want := range map[string][]string{
		"/dead?did=1":           {"Postgres does not answer", "17"},
		"/keys?key=a&did=1":     {"Postgres does not answer", "17"},
		"/dead?q=nothing&did=1": {"No key or reason contains “nothing”."}, // this page does not read Postgres
	} {
		d := setup(t)
		d.bury(t, "a", 17, "no")
		slow, err := store.Open(d.url, store.Options{Logger: d.log, MaxConns: 8, StatementTimeout: time.Hour})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, slow.Close()) })
		patient := *d
		patient.store = slow
		olga := patient.serve(t, false, auth.Options{})
		lock, err := d.db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		_, err = lock.ExecContext(t.Context(), "LOCK TABLE counters, counters_actions IN ACCESS EXCLUSIVE MODE")
		require.NoError(t, err)

		got := olga.get(t, page)
		require.Equal(t, http.StatusOK, got.status, page)
		for _, text := range want {
			require.Contains(t, got.body, text, page)
		}
		require.NotContains(t, got.body, "Redis does not answer", page)
		require.NoError(t, lock.Rollback())
	}
}

func TestDeadLettersAreSearchedAndPaged(t *testing.T) {
	t.Parallel()
	d := setup(t)
	for i := range 60 {
		d.bury(t, counter.Key("page:"+strconv.Itoa(i)), 1, "too large")
	}
	d.bury(t, "other & <b>", 1, "too small")
	olga := d.serve(t, false, auth.Options{}) // the open dashboard: the visitor is "local"

	first := olga.get(t, "/dead?q=PAGE")
	require.Equal(t, 50, strings.Count(first.body, "<tbody>"))
	next := strings.ReplaceAll(between(t, first.body, `rel="next" href="`, `"`), "&amp;", "&")
	second := olga.get(t, next)
	require.Equal(t, 10, strings.Count(second.body, "<tbody>"))
	require.NotContains(t, second.body, `rel="next"`)

	found := olga.get(t, "/dead?q=small").body
	require.Equal(t, 1, strings.Count(found, "<tbody>"))
	require.Contains(t, found, `href="/keys?key=other%20%26%20%3cb%3e"`)
	require.Contains(t, olga.get(t, "/dead?q=nothing").body, "No key or reason contains “nothing”.")
}

func TestCounterIsShownAndFlushed(t *testing.T) {
	t.Parallel()
	d := setup(t)
	d.write(t, "a", 1234)
	olga := d.serve(t, false, auth.Options{})

	page := olga.get(t, "/keys?key=a").body
	require.Contains(t, page, ">dirty<")
	require.Contains(t, page, "1,234")
	require.Contains(t, page, "No row.")
	after := olga.follow(t, olga.post(t, "/keys/flush", url.Values{"key": {"a"}}))
	require.Contains(t, after.body, "no worker is running")
	d.work(t)
	after = olga.follow(t, olga.post(t, "/keys/flush", url.Values{"key": {"a"}}))
	require.Contains(t, after.body, "Postgres has it")
	require.Contains(t, after.body, ">clean<")

	require.Contains(t, olga.get(t, "/keys?key=b").body, "it was never written")
	invalid := olga.get(t, "/keys?key=a%00")
	require.Equal(t, http.StatusBadRequest, invalid.status)
	require.Contains(t, invalid.body, "That is not a key: the key has a control character")
}

// An operator who has removed the cause does not want to wait for the retry.
func TestFlushDoesNotWaitForTheRetry(t *testing.T) {
	t.Parallel()
	d := setup(t)
	d.write(t, "a", 17)
	require.NoError(t, d.cache.SetAside(t.Context(), d.cache.Shard("a"), []counter.Key{"a"}, time.Hour))
	olga := d.serve(t, false, auth.Options{})
	require.Contains(t, olga.get(t, "/keys?key=a").body, ">waits for a retry<")
	d.work(t)
	after := olga.follow(t, olga.post(t, "/keys/flush", url.Values{"key": {"a"}}))
	require.Contains(t, after.body, "Postgres has it")
	require.Contains(t, after.body, ">clean<")
}

func TestCounterRefusedAgainWaitsForARetry(t *testing.T) {
	t.Parallel()
	d := setup(t)
	d.configure(t, map[string]string{"AFTERWRITE_SHARDS": "64", "AFTERWRITE_RETRY_BACKOFF": "10m"})
	_, err := d.db.ExecContext(t.Context(), "ALTER TABLE counters ADD CONSTRAINT small CHECK (value < 10) NOT VALID")
	require.NoError(t, err)
	d.write(t, "a", 17)
	require.NoError(t, d.cache.SetAside(t.Context(), d.cache.Shard("a"), []counter.Key{"a"}, time.Hour))
	d.work(t)
	olga := d.serve(t, false, auth.Options{})
	after := olga.follow(t, olga.post(t, "/keys/flush", url.Values{"key": {"a"}}))
	require.Contains(t, after.body, "Postgres refused it, or its row is locked: it waits for a retry")
	require.Contains(t, after.body, "retry:a", "the worker tried the row and sent a retry task")
}

func TestUnrecordableActionsAreNotRun(t *testing.T) {
	t.Parallel()
	d := setup(t)
	d.bury(t, "a", 1, "no")
	path := d.sendTask(t)
	olga := d.serve(t, true, auth.Options{})
	_, err := d.db.Exec(`DROP TABLE counters_actions`)
	require.NoError(t, err)

	for _, rejected := range []answer{
		olga.post(t, "/dead/redrive", url.Values{"key": {"a"}}),
		olga.send(t, http.MethodDelete, path, "", "Sec-Fetch-Site: same-origin"),
	} {
		require.Equal(t, http.StatusServiceUnavailable, rejected.status)
		require.Contains(t, rejected.body, "the audit log cannot record it")
	}
	_, err = d.operator.Get(t.Context(), "a")
	require.NoError(t, err, "still dead")
	require.True(t, d.taskIsThere(t))
	require.Equal(t, http.StatusServiceUnavailable, olga.get(t, "/actions").status)
}

func TestViewersSeeNoButtons(t *testing.T) {
	t.Parallel()
	d := setup(t)
	d.bury(t, "a", 1, "no")
	vic := d.serve(t, true, auth.Options{Users: people()}).as(t, "vic")
	page := vic.get(t, "/dead").body
	require.Contains(t, page, "You are a viewer")
	require.NotContains(t, page, "/dead/discard")
	require.NotContains(t, page, `type="checkbox"`)
	require.NotContains(t, vic.get(t, "/keys?key=a").body, "Redrive")
	require.Contains(t, vic.get(t, "/asynq").body, "READ_ONLY")
}

func TestChangesThroughAsynqmonAreRecorded(t *testing.T) {
	t.Parallel()
	d := setup(t)
	path := d.sendTask(t)
	olga := d.serve(t, true, auth.Options{Users: people()}).as(t, "olga")
	require.Equal(t, http.StatusNoContent, olga.send(t, http.MethodDelete, path, "", "Sec-Fetch-Site: same-origin").status)
	log := olga.get(t, "/actions").body
	require.Contains(t, log, "asynqmon DELETE")
	require.Contains(t, log, path)
	require.Contains(t, log, "answered 204")
}

func TestMissingAuditTableSaysToMigrate(t *testing.T) {
	t.Parallel()
	d := setup(t)
	d.bury(t, "a", 1, "no")
	olga := d.serve(t, true, auth.Options{Users: people()}).as(t, "olga")
	_, err := d.db.ExecContext(t.Context(), "DROP TABLE counters_actions")
	require.NoError(t, err)
	for range 5 { // several times, because a missing audit table must not open the breaker
		page := olga.get(t, "/actions")
		require.Equal(t, http.StatusServiceUnavailable, page.status)
		require.Contains(t, page.body, "Run afterwrite migrate")
		require.NotContains(t, page.body, "does not answer")
	}
	require.NotContains(t, olga.get(t, "/keys?key=a").body, "Postgres does not answer")
	got := olga.post(t, "/dead/redrive", url.Values{"key": {"a"}})
	require.Equal(t, http.StatusServiceUnavailable, got.status)
	require.Contains(t, got.body, "Run afterwrite migrate")
}
