package api_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/catalog"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
)

const likesHistory = "/v1/counters/likes:7/history"

// recorded is an operation in the answer of a history.
type recorded struct {
	Version   *int64 `json:"version"`
	Operation string `json:"operation"`
	Amount    *int64 `json:"amount"`
	Value     *int64 `json:"value"`
	At        string `json:"at"`
	Synced    bool   `json:"synced"`
	Caller    string `json:"caller"`
	Request   string `json:"request_id"`
	Note      string `json:"note"`
}

// operations returns the operations of a history, and whether others follow.
func (a *answer) operations(t *testing.T) (all []recorded, more bool) {
	t.Helper()
	var body struct {
		Operations []recorded `json:"operations"`
		More       bool       `json:"more"`
	}
	require.Equal(t, http.StatusOK, a.StatusCode, a.text)
	require.NoError(t, json.Unmarshal([]byte(a.text), &body))
	return body.Operations, body.More
}

func TestHistoryHasEachOperationAndItsOrigin(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.serve(t, b.service, api.Options{Historian: b.catalog, Keys: keyring(t, 0, "web:read+write")})
	key := "Authorization: Bearer web"
	b.send(t, http.MethodPut, "/v1/counters/likes:7", `{"value":10}`, key, "X-Request-Id: r1", "Afterwrite-Note: ключ")
	b.send(t, http.MethodPost, "/v1/batch", `{"operations":[{"op":"increment","key":"likes:7","note":"own"},
		{"op":"increment","key":"likes:7","by":-1},{"op":"delete","key":"likes:7"},{"op":"increment","key":"views:7"}]}`,
		key, "X-Request-Id: r2", "Afterwrite-Note: all")
	pending, err := b.Cache.Pending(t.Context(), "likes:7")
	require.NoError(t, err)
	row := pending.Row
	for _, synced := range []bool{false, true} {
		all, more := b.send(t, http.MethodGet, likesHistory, "", key).operations(t)
		require.False(t, more)
		require.Len(t, all, 4)
		value := func(n int64) *int64 { return &n }
		for i, want := range []recorded{
			{Version: value(1), Operation: "set", Amount: value(10), Value: value(10), Request: "r1", Note: "ключ"},
			{Version: value(2), Operation: "increment", Amount: value(1), Value: value(11), Request: "r2", Note: "own"},
			{Version: value(3), Operation: "increment", Amount: value(-1), Value: value(10), Request: "r2", Note: "all"},
			{Version: value(4), Operation: "delete", Value: value(0), Request: "r2", Note: "all"},
		} {
			want.At, want.Synced, want.Caller = all[i].At, synced, "web"
			require.Equal(t, want, all[i])
		}
		// Postgres gets them, and Redis still has them.
		_, err = b.Store.UpsertHistory(t.Context(), []counter.Row{row}, store.History{"likes:7": pending.Records.All})
		require.NoError(t, err)
	}
	all, more := b.send(t, http.MethodGet, likesHistory+"?after=1&limit=2", "", key).operations(t)
	require.True(t, more)
	require.Len(t, all, 2)
	require.EqualValues(t, 2, *all[0].Version)
	all, _ = b.send(t, http.MethodGet, likesHistory+"?from=2020-01-01T00:00:00Z&to=2020-01-02T00:00:00%2B01:00", "", key).operations(t)
	require.Empty(t, all)
	all, _ = b.send(t, http.MethodGet, "/v1/counters/views:7/history", "", key).operations(t)
	require.Empty(t, all)
}

func TestOperationOnAnUnknownBaseHasItsNumber(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.send(t, http.MethodPost, "/v1/counters/likes:7/increment", "", "Prefer: return=minimal")
	all, _ := b.send(t, http.MethodGet, likesHistory, "").operations(t)
	require.Len(t, all, 1)
	require.EqualValues(t, 1, *all[0].Version)
	require.EqualValues(t, 1, *all[0].Value)
	require.EqualValues(t, 1, *all[0].Amount)
}

func TestBadNotesAreRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	long := strings.Repeat("x", counter.MaxNoteBytes+1)
	a := b.send(t, http.MethodPost, "/v1/counters/likes:7/increment", "", "Afterwrite-Note: "+long)
	require.Equal(t, http.StatusBadRequest, a.StatusCode)
	require.Equal(t, "invalid_body", a.problem(t).Code)
	a = b.send(t, http.MethodPost, "/v1/batch", `{"operations":[{"op":"increment","key":"likes:7","note":"`+long+`"}]}`)
	require.Equal(t, http.StatusBadRequest, a.StatusCode)
	a = b.send(t, http.MethodPost, "/v1/batch", `{"operations":[{"op":"increment","key":"likes:7","note":7}]}`)
	require.Equal(t, http.StatusBadRequest, a.StatusCode)
	all, _ := b.send(t, http.MethodGet, likesHistory, "").operations(t)
	require.Empty(t, all, "nothing was applied")
}

func TestBadQueriesOfAHistoryAreRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, query := range []string{"after=-1", "after=x", "limit=0", "limit=1001", "from=today", "to=2020-01-01", "after=1&after=2"} {
		a := b.send(t, http.MethodGet, likesHistory+"?"+query, "")
		require.Equal(t, http.StatusBadRequest, a.StatusCode, query)
		require.Equal(t, "invalid_query", a.problem(t).Code)
	}
}

// historian implements api.Historian with an error.
type historian struct {
	*catalog.Catalog

	err error
}

func (h historian) History(context.Context, counter.Key, store.Span) (catalog.History, error) {
	return catalog.History{}, h.err
}

func TestHistoryFailsWithTheErrorOfItsServer(t *testing.T) {
	t.Parallel()
	for _, code := range []counter.Code{
		counter.CodeInternal, counter.CodeOverloaded, counter.CodeDatabaseUnavailable, counter.CodeCacheUnavailable,
	} {
		h := historian{catalog.New(catalog.Options{Cache: new(cache.Cache)}), &counter.Error{Code: code, Err: errSecret}}
		b := serve(t, always(counter.Result{}), api.Options{Historian: h})
		a := b.send(t, http.MethodGet, likesHistory, "")
		require.Equal(t, api.Statuses()[code], a.StatusCode)
		require.Equal(t, string(code), a.problem(t).Code)
	}
}
