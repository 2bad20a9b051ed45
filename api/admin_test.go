package api_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/tasks"
)

const (
	token      = "correct-horse-battery"
	authorized = "Authorization: Bearer " + token
	dead       = "/v1/admin/dead"
)

// setupAdmin is setup with the admin routes.
func setupAdmin(t *testing.T) *bundle {
	t.Helper()
	b := setup(t)
	b.serve(t, b.service, b.adminOptions())
	return b
}

func (b *bundle) adminOptions() api.Options {
	return api.Options{Admin: api.Admin{Token: token, Operator: operate.New(operate.Options{
		Cache: b.Cache, Store: b.Store, Redis: b.Redis, Logger: slog.New(slog.DiscardHandler),
	})}}
}

// admin makes a request with the token.
func (b *bundle) admin(t *testing.T, method, target, body string, headers ...string) *answer {
	t.Helper()
	return b.send(t, method, target, body, append(headers, authorized)...)
}

// bury makes counters dead that have a value of 10.
func (b *bundle) bury(t *testing.T, keys ...counter.Key) {
	t.Helper()
	for _, key := range keys {
		b.put(t, url.PathEscape(string(key)), "10")
		note := cache.Dead{Reason: "violates \"small\"", Since: time.Unix(1_700_000_000, 0).UTC(), Attempts: 8}
		require.NoError(t, b.Cache.Bury(t.Context(), key, note))
	}
}

// page expects a page of dead letters.
func (b *bundle) page(t *testing.T, query string) (keys []counter.Key, next string, total int) {
	t.Helper()
	a := b.admin(t, http.MethodGet, dead+query, "")
	require.Equal(t, http.StatusOK, a.StatusCode, a.text)
	var p struct {
		Dead  []operate.DeadLetter `json:"dead"`
		Next  *string              `json:"next"`
		Total int                  `json:"total"`
	}
	require.NoError(t, json.Unmarshal([]byte(a.text), &p))
	for _, l := range p.Dead {
		keys = append(keys, l.Key)
	}
	if p.Next != nil {
		next = *p.Next
	}
	return keys, next, p.Total
}

// adminRequests are one of each.
var adminRequests = map[string]string{
	"GET " + dead: "", "HEAD " + dead: "", "GET " + dead + "/a": "", "DELETE " + dead + "/a": "", "POST " + dead + "/redrive": `{"all":true}`,
}

func TestAdminPathsAreNotThereWithoutAToken(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.bury(t, "a")
	before := b.state(t)
	for line, body := range adminRequests {
		method, target, _ := strings.Cut(line, " ")
		for _, header := range []string{"X-Nothing: 1", "Authorization: Bearer ", "Authorization: Bearer x"} {
			require.Equal(t, http.StatusNotFound, b.send(t, method, target, body, header).StatusCode, line)
		}
	}
	require.Equal(t, before, b.state(t))
}

func TestAdminPathsTakeTheTokenOnly(t *testing.T) {
	t.Parallel()
	b := setupAdmin(t)
	b.bury(t, "a")
	before := b.state(t)
	for line, body := range adminRequests {
		method, target, _ := strings.Cut(line, " ")
		for _, headers := range [][]string{
			nil,
			{"Authorization:"},
			{"Authorization: Bearer"},
			{"Authorization: Bearer "},
			{"Authorization: " + token},
			{"Authorization: Basic " + token},
			{authorized + "x"},
			{strings.TrimSuffix(authorized, "y")},
			{"Authorization: Bearer " + strings.ToUpper(token)},
			{authorized, authorized},
			{"Authorization: Bearer x", authorized},
			{"Cookie: token=" + token},
			{authorized + ", Basic x"},
			{"Proxy-" + authorized},
		} {
			a := b.send(t, method, target, body, headers...)
			require.Equal(t, http.StatusUnauthorized, a.StatusCode, "%s %v", line, headers)
			require.Equal(t, `Bearer realm="afterwrite"`, a.Header.Get("WWW-Authenticate"))
			if method != http.MethodHead {
				require.Equal(t, "unauthorized", a.problem(t).Code)
			}
		}
	}
	require.Equal(t, http.StatusUnauthorized, b.send(t, http.MethodGet, dead+"?token="+token, "").StatusCode)
	require.Equal(t, before, b.state(t))
	require.NotContains(t, b.log.String(), token)

	for _, header := range []string{authorized, "authorization: bearer " + token, "Authorization: BEARER   " + token} {
		require.Equal(t, http.StatusOK, b.send(t, http.MethodGet, dead, "", header).StatusCode, header)
	}
	require.Equal(t, http.StatusOK, b.admin(t, http.MethodHead, dead, "").StatusCode)
}

func TestDeadLettersAreListedInPages(t *testing.T) {
	t.Parallel()
	b := setupAdmin(t)
	keys, next, total := b.page(t, "")
	require.Empty(t, keys)
	require.Empty(t, next)
	require.Zero(t, total)

	for i := range 25 {
		b.bury(t, counter.Key(fmt.Sprintf("k/%d é", i)))
	}
	seen := make(map[counter.Key]bool)
	for query := "?limit=10&unknown=1"; query != ""; {
		keys, next, total = b.page(t, query)
		require.Equal(t, 25, total)
		for _, key := range keys {
			require.False(t, seen[key])
			seen[key] = true
		}
		query = ""
		if next != "" {
			require.Len(t, keys, 10)
			query = "?limit=10&cursor=" + next
		}
	}
	require.Len(t, seen, 25)
	keys, next, _ = b.page(t, "")
	require.Len(t, keys, 25)
	require.Empty(t, next)
}

func TestADeadLetterIsShownWithWhatBothSidesHave(t *testing.T) {
	t.Parallel()
	b := setupAdmin(t)
	b.insertRow(t, "a/b", 7, 3)
	b.bury(t, "a/b")
	client := asynq.NewClientFromRedisClient(b.Redis)
	require.NoError(t, tasks.Send(t.Context(), client, tasks.Retry("a/b", 5, time.Hour)))
	require.NoError(t, asynq.NewInspectorFromRedisClient(b.Redis).ArchiveTask(tasks.QueueRetry, tasks.RetryID("a/b")))

	a := b.admin(t, http.MethodGet, dead+"/a%2Fb", "")
	require.Equal(t, http.StatusOK, a.StatusCode, a.text)
	require.JSONEq(t, fmt.Sprintf(`{
		"key": "a/b", "shard": %d, "reason": "violates \"small\"", "attempts": 8, "since": "2023-11-14T22:13:20Z",
		"redis": {"state": "value", "value": 10, "version": 4}, "postgres": {"state": "value", "value": 7, "version": 3},
		"retry": {"id": "%s", "queue": "%s", "state": "archived", "retried": 0, "last_error": ""}
	}`, b.Cache.Shard("a/b"), tasks.RetryID("a/b"), tasks.QueueRetry), a.text)

	b.put(t, "alive", "1")
	for _, key := range []string{"alive", "never", "redrive"} {
		a = b.admin(t, http.MethodGet, dead+"/"+key, "")
		require.Equal(t, http.StatusNotFound, a.StatusCode)
		require.Contains(t, a.problem(t).Detail, "not a dead letter")
	}
}

func TestDiscardSaysWhatItDropped(t *testing.T) {
	t.Parallel()
	b := setupAdmin(t)
	b.insertRow(t, "a", 7, 3)
	b.bury(t, "a", "new")

	a := b.admin(t, http.MethodDelete, dead+"/a", "")
	require.Equal(t, http.StatusOK, a.StatusCode, a.text)
	require.JSONEq(t, `{
		"key": "a", "dropped": {"state": "value", "value": 10, "version": 4}, "kept": {"state": "value", "value": 7, "version": 3},
		"now": {"state": "value", "value": 7, "version": 5}, "written": false, "refused": null
	}`, a.text)
	got := b.get(t, "a")
	require.Equal(t, int64(7), *got.Value)
	require.Equal(t, int64(5), *got.Version)
	require.Equal(t, http.StatusNotFound, b.admin(t, http.MethodDelete, dead+"/a", "").StatusCode, "once")

	a = b.admin(t, http.MethodDelete, dead+"/new", "")
	require.Equal(t, http.StatusOK, a.StatusCode, a.text)
	require.Contains(t, a.text, `"kept":{"state":"none","value":0,"version":0},"now":{"state":"deleted","value":0,"version":2}`)
	require.Equal(t, http.StatusNotFound, b.send(t, http.MethodGet, "/v1/counters/new", "").StatusCode)
	require.Equal(t, 2, strings.Count(b.log.String(), "dead letter discarded"))
	require.Contains(t, b.log.String(), "10 (version 4)")
}

func TestDiscardOfARowThatPostgresRefusesSaysSo(t *testing.T) {
	t.Parallel()
	b := setupAdmin(t)
	b.bury(t, "a")
	_, err := b.postgres.ExecContext(t.Context(), `ALTER TABLE counters ADD CONSTRAINT positive CHECK (value > 0) NOT VALID`)
	require.NoError(t, err)
	a := b.admin(t, http.MethodDelete, dead+"/a", "")
	require.Equal(t, http.StatusOK, a.StatusCode, a.text)
	require.Contains(t, a.text, `"now":{"state":"none"`)
	require.Contains(t, a.text, `violates check constraint`)
}

// TestDiscardsAmongWritesDropOnlyWhatTheyShow discards and writes one counter at the same time: every increment is in the
// counter, or in what a discard says it dropped.
func TestDiscardsAmongWritesDropOnlyWhatTheyShow(t *testing.T) {
	t.Parallel()
	b := setupAdmin(t)
	b.insertRow(t, "a", 0, 1)
	const writers, each = 4, 50
	var clients sync.WaitGroup
	for range writers {
		clients.Go(func() {
			for range each {
				a := b.send(t, http.MethodPost, "/v1/counters/a/increment", "")
				if a.StatusCode != http.StatusOK {
					t.Errorf("an increment is answered %d: %s", a.StatusCode, a.text)
				}
			}
		})
	}
	dropped, statuses := int64(0), make(map[int]int)
	written := make(chan struct{})
	go func() { clients.Wait(); close(written) }()
	for over := false; !over; {
		select {
		case <-written:
			over = true
		default:
		}
		_ = b.Cache.Bury(t.Context(), "a", cache.Dead{Reason: "test"}) // it may be clean
		a := b.admin(t, http.MethodDelete, dead+"/a", "")
		statuses[a.StatusCode]++
		if a.StatusCode == http.StatusOK {
			var d struct {
				Dropped operate.Stored `json:"dropped"`
				Now     operate.Stored `json:"now"`
			}
			require.NoError(t, json.Unmarshal([]byte(a.text), &d))
			dropped += d.Dropped.Value - d.Now.Value
		} else {
			require.Contains(t, []int{http.StatusConflict, http.StatusNotFound}, a.StatusCode, a.text)
		}
	}
	require.Equal(t, int64(writers*each), *b.get(t, "a").Value+dropped, "%v", statuses)
	t.Logf("discards were answered %v, and dropped %d of %d", statuses, dropped, writers*each)
}

func TestRedriveMakesDueWhatIsDead(t *testing.T) {
	t.Parallel()
	b := setupAdmin(t)
	b.bury(t, "a", "b", "redrive", "d")
	redrive := func(body string) string {
		a := b.admin(t, http.MethodPost, dead+"/redrive", body)
		require.Equal(t, http.StatusOK, a.StatusCode, a.text)
		return a.text
	}
	require.JSONEq(t, `{"redriven":2,"not_dead":["never"],"complete":true,"workers":0}`, redrive(`{"keys":["a","never","redrive","a"]}`))
	keys, _, _ := b.page(t, "")
	require.ElementsMatch(t, []counter.Key{"b", "d"}, keys)
	info, err := asynq.NewInspectorFromRedisClient(b.Redis).GetTaskInfo(tasks.QueueFlush, "flush:a")
	require.NoError(t, err)
	require.Equal(t, asynq.TaskStateAggregating, info.State)

	require.JSONEq(t, `{"redriven":2,"not_dead":[],"complete":true,"workers":0}`, redrive(`{"all":true}`))
	require.JSONEq(t, `{"redriven":0,"not_dead":[],"complete":true,"workers":0}`, redrive(`{"all":true}`))
	require.Equal(t, 2, strings.Count(b.log.String(), "dead letters redriven"))
}

// TestTheKeyRedriveCanBeShownAndDiscarded although a path of that name takes POST.
func TestTheKeyRedriveCanBeShownAndDiscarded(t *testing.T) {
	t.Parallel()
	b := setupAdmin(t)
	b.bury(t, "redrive")
	for _, key := range []string{"redrive", "%72edrive"} {
		require.Contains(t, b.admin(t, http.MethodGet, dead+"/"+key, "").text, `"key":"redrive"`)
	}
	require.Equal(t, http.StatusOK, b.admin(t, http.MethodDelete, dead+"/redrive", "").StatusCode)
}

func TestBadAdminRequestsChangeNothing(t *testing.T) {
	t.Parallel()
	b := setupAdmin(t)
	b.bury(t, "a")
	before := b.state(t)
	long := `"` + strings.Repeat(`a","`, api.MaxRedrive) + `a"`
	for _, c := range []badRequest{
		{method: "GET", target: dead + "?limit=0", status: 400, code: "invalid_query", detail: "1 to 500"},
		{method: "GET", target: dead + "?limit=501", status: 400, code: "invalid_query", detail: `"501"`},
		{method: "GET", target: dead + "?limit=", status: 400, code: "invalid_query"},
		{method: "GET", target: dead + "?limit=1.0", status: 400, code: "invalid_query"},
		{method: "GET", target: dead + "?limit=99999999999999999999", status: 400, code: "invalid_query"},
		{method: "GET", target: dead + "?cursor=", status: 400, code: "invalid_query", detail: "the page before"},
		{method: "GET", target: dead + "?cursor=x", status: 400, code: "invalid_query"},
		{method: "GET", target: dead + "?cursor=LTE6YQ", status: 400, code: "invalid_query"}, // -1:a
		{method: "GET", target: dead + "?cursor=MTo", status: 400, code: "invalid_query"},    // 1:
		{method: "GET", target: dead + "?cursor=" + strings.Repeat("YQ", 2000), status: 400, code: "invalid_query", detail: `..`},
		{method: "GET", target: dead + "/%00", status: 400, code: "invalid_key"},
		{method: "GET", target: dead + "/", status: 404, code: "not_found"},
		{method: "GET", target: dead + "/a/b", status: 404, code: "not_found"},
		{method: "DELETE", target: dead + "/%FF", status: 400, code: "invalid_key"},
		{method: "DELETE", target: dead + "/" + longestKey + "k", status: 400, code: "invalid_key"},
		{method: "DELETE", target: dead + "/b", status: 404, code: "not_found"},
		{method: "DELETE", target: dead, status: 405, code: "method_not_allowed", detail: "GET"},
		{method: "PUT", target: dead + "/a", body: `{"value":1}`, status: 405, code: "method_not_allowed"},
		{method: "POST", target: dead + "/a", body: `{"all":true}`, status: 405, code: "method_not_allowed"},
		{method: "POST", target: dead + "/redrive", status: 400, code: "invalid_body", detail: "empty"},
		{method: "POST", target: dead + "/redrive", body: `{}`, status: 400, code: "invalid_body", detail: "either"},
		{method: "POST", target: dead + "/redrive", body: `{"all":true,"keys":["a"]}`, status: 400, code: "invalid_body", detail: "either"},
		{method: "POST", target: dead + "/redrive", body: `{"all":false}`, status: 400, code: "invalid_body", detail: "it takes true"},
		{method: "POST", target: dead + "/redrive", body: `{"all":"true"}`, status: 400, code: "invalid_body"},
		{method: "POST", target: dead + "/redrive", body: `{"all":1}`, status: 400, code: "invalid_body"},
		{method: "POST", target: dead + "/redrive", body: `{"all":null}`, status: 400, code: "invalid_body"},
		{method: "POST", target: dead + "/redrive", body: `{"all":true,"all":true}`, status: 400, code: "invalid_body", detail: "twice"},
		{method: "POST", target: dead + "/redrive", body: `{"all":true}{}`, status: 400, code: "invalid_body", detail: "more after the end"},
		{method: "POST", target: dead + "/redrive", body: `{"all":true,"wait":true}`, status: 400, code: "unknown_field", detail: `"wait"`},
		{method: "POST", target: dead + "/redrive", body: `{"ALL":true}`, status: 400, code: "unknown_field"},
		{method: "POST", target: dead + "/redrive", body: `["a"]`, status: 400, code: "invalid_body"},
		{method: "POST", target: dead + "/redrive", body: `{"keys":[]}`, status: 400, code: "invalid_body", detail: "1 to 1000"},
		{method: "POST", target: dead + "/redrive", body: `{"keys":null}`, status: 400, code: "invalid_body", detail: "null"},
		{method: "POST", target: dead + "/redrive", body: `{"keys":"a"}`, status: 400, code: "invalid_body"},
		{method: "POST", target: dead + "/redrive", body: `{"keys":["a",5]}`, status: 400, code: "invalid_key"},
		{method: "POST", target: dead + "/redrive", body: `{"keys":["a",""]}`, status: 400, code: "invalid_key", detail: "empty"},
		{method: "POST", target: dead + "/redrive", body: `{"keys":["a"`, status: 400, code: "invalid_body", detail: "too early"},
		{method: "POST", target: dead + "/redrive", body: `{"keys":[` + long + `]}`, status: 400, code: "too_many_operations", detail: "1000"},
		{method: "POST", target: dead + "/redrive", body: mib + `{"all":true}`, status: 413, code: "body_too_large"},
		{
			method: "POST", target: dead + "/redrive", body: `{"all":true}`, headers: []string{"Content-Type: text/plain"},
			status: 415, code: "unsupported_media_type",
		},
	} {
		c.name = c.method + " " + c.target + " " + c.body[:min(len(c.body), 60)]
		c.headers = append(c.headers, authorized)
		a := b.sendRaw(t, c.request())
		require.Equal(t, c.status, a.StatusCode, "%s: %s", c.name, a.text)
		require.Equal(t, c.code, a.problem(t).Code, c.name)
		require.Contains(t, a.problem(t).Detail, c.detail, c.name)
		require.Equal(t, before, b.state(t), c.name)
	}
}

func TestAdminWorksWithoutPostgresAsFarAsItCan(t *testing.T) {
	t.Parallel()
	b := setupAdmin(t)
	b.bury(t, "a")
	require.NoError(t, b.Store.Close())

	for _, target := range []string{dead, dead + "/a"} {
		a := b.admin(t, http.MethodGet, target, "")
		require.Equal(t, http.StatusOK, a.StatusCode, a.text)
		require.Contains(t, a.text, `"postgres":{"state":"unknown"`)
	}
	before := b.state(t)
	a := b.admin(t, http.MethodDelete, dead+"/a", "")
	require.Equal(t, http.StatusServiceUnavailable, a.StatusCode)
	require.Equal(t, "database_unavailable", a.problem(t).Code)
	require.Contains(t, a.problem(t).Detail, "nothing was discarded")
	require.Equal(t, before, b.state(t))
	require.Equal(t, http.StatusOK, b.admin(t, http.MethodPost, dead+"/redrive", `{"keys":["a"]}`).StatusCode)
}

func TestAdminSaysThatRedisIsAway(t *testing.T) {
	t.Parallel()
	b := setupAdmin(t)
	b.bury(t, "a")
	gone := operate.New(operate.Options{
		Cache: cache.New(unreachable(t), cache.Options{Shards: 4, CleanTTL: time.Hour}), Store: b.Store, Redis: unreachable(t),
		Logger: slog.New(slog.DiscardHandler),
	})
	b.serve(t, b.service, api.Options{Admin: api.Admin{Token: token, Operator: gone}})
	for line, body := range adminRequests {
		method, target, _ := strings.Cut(line, " ")
		a := b.admin(t, method, target, body)
		require.Equal(t, http.StatusServiceUnavailable, a.StatusCode, line)
		require.Equal(t, "1", a.Header.Get("Retry-After"))
		if method != http.MethodHead {
			require.Equal(t, "cache_unavailable", a.problem(t).Code)
			require.NotContains(t, a.text, "127.0.0.1")
		}
	}
	require.Contains(t, b.log.String(), "127.0.0.1", "the log has the cause")
}

// TestARedriveOfAllThatTakesTooLongSaysSo and that of named keys, whose client knows what to repeat, is not done.
func TestARedriveOfAllThatTakesTooLongSaysSo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.bury(t, "a")
	b.addr = start(t, api.NewHasty(b.service, b.adminOptions(), time.Nanosecond))
	a := b.admin(t, http.MethodPost, dead+"/redrive", `{"all":true}`)
	require.Equal(t, http.StatusOK, a.StatusCode, a.text)
	require.JSONEq(t, `{"redriven":0,"not_dead":[],"complete":false,"workers":0}`, a.text)
	a = b.admin(t, http.MethodPost, dead+"/redrive", `{"keys":["a"]}`)
	require.Equal(t, http.StatusServiceUnavailable, a.StatusCode)
	require.Contains(t, a.problem(t).Detail, "it may be repeated")
}

func TestTooManyAdminRequestsAtOnceAreRefused(t *testing.T) {
	t.Parallel()
	b := setupAdmin(t)
	const body = `{"all":true}`
	var waiting []*slowClient
	for range 4 {
		waiting = append(waiting, b.slowTo(t, dead+"/redrive", body, authorized))
	}
	a := b.admin(t, http.MethodGet, dead, "")
	require.Equal(t, http.StatusServiceUnavailable, a.StatusCode)
	require.Equal(t, "overloaded", a.problem(t).Code)
	require.Equal(t, http.StatusUnauthorized, b.send(t, http.MethodGet, dead, "").StatusCode, "who has no token takes no place")
	b.put(t, "a", "1")
	for _, c := range waiting {
		require.NoError(t, c.send(len(body)))
		require.Equal(t, http.StatusOK, c.answer(t).StatusCode)
	}
	require.Equal(t, http.StatusOK, b.admin(t, http.MethodGet, dead, "").StatusCode)
}
