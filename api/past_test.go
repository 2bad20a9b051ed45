package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/catalog"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
)

// past is a counter as it was at a time.
type past struct {
	Value   int64     `json:"value"`
	Version int64     `json:"version"`
	At      time.Time `json:"at"`
	Since   time.Time `json:"since"`
	Synced  bool      `json:"synced"`
}

func (b *bundle) at(t *testing.T, key, at string) *answer {
	t.Helper()
	return b.send(t, http.MethodGet, "/v1/counters/"+key+"?at="+url.QueryEscape(at), "")
}

func (b *bundle) past(t *testing.T, key string, at time.Time) past {
	t.Helper()
	a := b.at(t, key, at.Format(time.RFC3339Nano))
	require.Equal(t, http.StatusOK, a.StatusCode, a.text)
	var p past
	require.NoError(t, json.Unmarshal([]byte(a.text), &p))
	require.True(t, p.At.Equal(at))
	return p
}

// notFound requires 404 with a detail.
func (b *bundle) notFound(t *testing.T, key string, at time.Time, detail string) {
	t.Helper()
	a := b.at(t, key, at.Format(time.RFC3339Nano))
	require.Equal(t, http.StatusNotFound, a.StatusCode, a.text)
	require.Contains(t, a.problem(t).Detail, detail)
}

// spaced makes a history in Redis with a second between its operations, the last of them now: 10, 11, deleted, 5.
func (b *bundle) spaced(t *testing.T) []counter.Record {
	t.Helper()
	b.send(t, http.MethodPut, "/v1/counters/likes:7", `{"value":10}`)
	b.send(t, http.MethodPost, "/v1/counters/likes:7/increment", "")
	b.send(t, http.MethodDelete, "/v1/counters/likes:7", "")
	b.send(t, http.MethodPost, "/v1/counters/likes:7/increment", `{"by":5}`)
	list := "{aw:" + b.Cache.Shard("likes:7").String() + "}:h:likes:7"
	texts := b.Redis.LRange(t.Context(), list, 0, -1).Val()
	require.Len(t, texts, 4)
	now := b.Redis.Time(t.Context()).Val().UnixMilli()
	for i, text := range texts {
		var version, value int64
		var own, kind string
		var ms int64
		_, err := fmt.Sscan(text, &version, &value, &own, &kind, &ms)
		require.NoError(t, err)
		ms = now - int64(len(texts)-1-i)*1000
		texts[i] = fmt.Sprintf("%d %d %s %s %d ", version, value, own, kind, ms)
		require.NoError(t, b.Redis.LSet(t.Context(), list, int64(i), texts[i]).Err())
	}
	pending, err := b.Cache.Pending(t.Context(), "likes:7")
	require.NoError(t, err)
	return pending.Records.All
}

func TestPastIsThatOfRedisAndPostgres(t *testing.T) {
	t.Parallel()
	b := setup(t)
	all := b.spaced(t)
	row := counter.Row{Key: "likes:7", Value: 11, Version: 2, Lineage: all[0].Lineage}
	for _, synced := range []int{0, 2} { // Postgres has none, and then the first two; Redis has all
		if synced > 0 {
			_, err := b.Store.UpsertHistory(t.Context(), []counter.Row{row}, store.History{"likes:7": all[:synced]})
			require.NoError(t, err)
		}
		for i, value := range []int64{10, 11, 0, 5} {
			if i == 2 {
				b.notFound(t, "likes:7", all[i].At, "had been deleted at "+catalog.TimeText(all[i].At))
				continue
			}
			want := past{Value: value, Version: int64(i + 1), Synced: i < synced, At: all[i].At, Since: all[i].At}
			require.Equal(t, want, b.past(t, "likes:7", all[i].At))
		}
		later := b.past(t, "likes:7", all[1].At.Add(500*time.Millisecond))
		require.Equal(t, all[1].At, later.Since)
		b.notFound(t, "likes:7", all[0].At.Add(-time.Millisecond), "begins later, at "+catalog.TimeText(all[0].At))
	}
	var p past
	a := b.at(t, "likes:7", strconv.FormatInt(all[1].At.UnixMilli(), 10))
	require.NoError(t, json.Unmarshal([]byte(a.text), &p))
	require.EqualValues(t, 11, p.Value)
	require.Equal(t, `"2"`, a.Header.Get("ETag"))
	a = b.send(t, http.MethodGet, fmt.Sprintf("/v1/counters/likes:7?at=%d", all[1].At.UnixMilli()), "", `If-None-Match: "2"`)
	require.Equal(t, http.StatusNotModified, a.StatusCode)
}

func TestPastOfAnUnknownBaseReadsTheBase(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.send(t, http.MethodPost, "/v1/counters/likes:7/increment", `{"by":3}`, "Prefer: return=minimal")
	require.EqualValues(t, 3, b.past(t, "likes:7", b.Redis.Time(t.Context()).Val().UTC().Truncate(time.Millisecond)).Value)
}

func TestPastIsRefusedWithTheReason(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.send(t, http.MethodPut, "/v1/counters/views:7", `{"value":10}`)
	b.notFound(t, "views:7", time.Now().Add(-time.Minute), "has no history (AFTERWRITE_HISTORY)")
	b.notFound(t, "likes:8", time.Now().Add(-time.Minute), "has no operation in its history")
	for at, detail := range map[string]string{
		time.Now().Add(time.Hour).Format(time.RFC3339): "at is in the future: it is ",
		"253370764799999": "at is in the future", "253370764800000": "at must be 0 to ", "-1": "at must be 0 to ",
		"": "at must be a time", "2026-01-31": "at must be a time", "12:00": "at must be a time",
	} {
		a := b.at(t, "likes:7", at)
		require.Equal(t, http.StatusBadRequest, a.StatusCode, at)
		require.Equal(t, "invalid_query", a.problem(t).Code)
		require.Contains(t, a.problem(t).Detail, detail)
	}
	for query, detail := range map[string]string{"at=1&at=2": "more than once", "at=1&wait=synced": "wait cannot be combined with at"} {
		a := b.send(t, http.MethodGet, "/v1/counters/likes:7?"+query, "")
		require.Equal(t, http.StatusBadRequest, a.StatusCode, query)
		require.Contains(t, a.problem(t).Detail, detail)
	}
	b = serve(t, always(counter.Result{}), api.Options{Lister: catalog.New(catalog.Options{Cache: new(cache.Cache)})})
	b.notFound(t, "likes:7", time.Now(), "no counter has a history here")
}
