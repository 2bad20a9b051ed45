package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/tasks"
)

// bury sets counters to 10 and makes them dead letters.
func (b *bundle) bury(t *testing.T, keys ...counter.Key) {
	t.Helper()
	for _, key := range keys {
		b.put(t, url.PathEscape(string(key)), "10")
		note := cache.Dead{Reason: "violates \"small\"", Since: time.Unix(1_700_000_000, 0).UTC(), Attempts: 8}
		require.NoError(t, b.Cache.Bury(t.Context(), key, note))
	}
}

// page reads a page of dead letters. next is "" on the last page.
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

func TestDeadLetterIsShownWithItsEntryRowAndRetry(t *testing.T) {
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

func TestDiscardReturnsWhatItDropped(t *testing.T) {
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
	require.Equal(t, http.StatusNotFound, b.admin(t, http.MethodDelete, dead+"/a", "").StatusCode, "it is no longer dead")

	a = b.admin(t, http.MethodDelete, dead+"/new", "")
	require.Equal(t, http.StatusOK, a.StatusCode, a.text)
	require.Contains(t, a.text, `"kept":{"state":"none","value":0,"version":0},"now":{"state":"deleted","value":0,"version":2}`)
	require.Equal(t, http.StatusNotFound, b.send(t, http.MethodGet, "/v1/counters/new", "").StatusCode)
	require.Equal(t, 2, strings.Count(b.log.String(), "dead letter discarded"))
	require.Contains(t, b.log.String(), "10 (version 4)")
}

func TestDiscardReturnsARefusalOfTheNewVersion(t *testing.T) {
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

// One counter is discarded and written at the same time. Every increment is in the counter or in what a discard reports as
// dropped.
func TestConcurrentDiscardsReportAllTheyDrop(t *testing.T) {
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
		_ = b.Cache.Bury(t.Context(), "a", cache.Dead{Reason: "test"}) // fails if a is clean
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

func TestRedriveMakesDeadKeysDue(t *testing.T) {
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

// A counter may be named redrive, although POST /v1/admin/dead/redrive is a route.
func TestKeyNamedRedriveCanBeShownAndDiscarded(t *testing.T) {
	t.Parallel()
	b := setupAdmin(t)
	b.bury(t, "redrive")
	for _, key := range []string{"redrive", "%72edrive"} {
		require.Contains(t, b.admin(t, http.MethodGet, dead+"/"+key, "").text, `"key":"redrive"`)
	}
	require.Equal(t, http.StatusOK, b.admin(t, http.MethodDelete, dead+"/redrive", "").StatusCode)
}
