package api_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/catalog"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/internal/store"
)

const (
	listPath = "/v1/counters"
	topPath  = "/v1/top"
)

// page is the answer to a list.
type page struct {
	Counters []value `json:"counters"`
	Next     *string `json:"next_cursor"`
}

func (p page) keys() []string {
	keys := make([]string, len(p.Counters))
	for i, c := range p.Counters {
		keys[i] = c.Key
	}
	return keys
}

func (a *answer) page(t *testing.T) page {
	t.Helper()
	var p page
	require.NoError(t, json.Unmarshal([]byte(a.text), &p))
	return p
}

// lister implements api.Lister with a function.
type lister func(ctx context.Context, prefix string, after counter.Key, limit int) (catalog.Page, error)

func (f lister) List(ctx context.Context, prefix string, after counter.Key, limit int) (catalog.Page, error) {
	return f(ctx, prefix, after, limit)
}

func (lister) Top(context.Context, string, int) (catalog.Top, error) { return catalog.Top{}, errSecret }

// topper implements api.Lister with a function, for top only.
type topper func(ctx context.Context, prefix string, n int) (catalog.Top, error)

func (topper) List(context.Context, string, counter.Key, int) (catalog.Page, error) {
	return catalog.Page{}, errSecret
}

func (f topper) Top(ctx context.Context, prefix string, n int) (catalog.Top, error) {
	return f(ctx, prefix, n)
}

func TestListHasThePresentValuesInTheOrderOfKeys(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insertRow(t, "page:é", 3, 1)
	b.insertRow(t, "page:a/b", 1, 1)
	b.insertRow(t, "page:b", 2, 1)
	b.insertRow(t, "other", 9, 1)
	b.put(t, "page:b", "20")
	b.put(t, "page:new", "1")

	a := b.send(t, http.MethodGet, listPath+"?prefix=page:&unknown=1", "")

	require.Equal(t, http.StatusOK, a.StatusCode)
	require.JSONEq(t, `{"counters":[{"key":"page:a/b","value":1,"version":1,"synced":true},`+
		`{"key":"page:b","value":20,"version":2,"synced":false},{"key":"page:é","value":3,"version":1,"synced":true}],"next_cursor":null}`, a.text)
	require.Empty(t, a.Header.Get("Preference-Applied"))
	require.Len(t, b.send(t, http.MethodGet, listPath, "").page(t).Counters, 4)
	require.Empty(t, b.send(t, http.MethodGet, listPath+"?prefix=none", "").page(t).Counters)
	require.Equal(t, http.StatusOK, b.send(t, http.MethodHead, listPath, "").StatusCode)
}

func TestListIsReadPageByPage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var want, got []string
	for i := range 25 {
		want = append(want, "k+ %/"+decimal(int64(100+i)))
		b.insertRow(t, want[i], 1, 1)
	}
	b.insertRow(t, "l", 1, 1)
	_, err := b.postgres.ExecContext(t.Context(), `UPDATE counters SET deleted_at = now() WHERE key = $1`, want[4])
	require.NoError(t, err)
	pages := 0
	for query := "&limit=5"; query != ""; pages++ {
		p := b.send(t, http.MethodGet, listPath+"?prefix="+url.QueryEscape("k+ %/")+query, "").page(t)
		got = append(got, p.keys()...)
		query = ""
		if p.Next != nil {
			query = "&limit=5&cursor=" + *p.Next
		}
	}
	require.Equal(t, slices.Delete(want, 4, 5), got)
	require.Equal(t, 5, pages, "the deleted counter took its place on a page")
}

// flushing starts a server whose flushes write everything to Postgres, and return left and err. It returns the timeouts of the flushes.
func (b *bundle) flushing(t *testing.T, left operate.Left, err error) *[]time.Duration {
	t.Helper()
	var waits []time.Duration
	b.serve(t, b.service, api.Options{Lister: b.catalog, Flusher: flusher(
		func(_ context.Context, keys []counter.Key, timeout time.Duration) (operate.Left, error) {
			require.Nil(t, keys)
			waits = append(waits, timeout)
			b.flush(t)
			return left, err
		})})
	return &waits
}

func TestListWithAWaitHasEveryWriteBeforeIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	waits := b.flushing(t, operate.Left{}, nil)
	b.put(t, "new", "7")
	require.Empty(t, b.send(t, http.MethodGet, listPath, "", "Prefer: wait=0").page(t).Counters, "it has never been flushed")
	require.Empty(t, *waits)

	a := b.send(t, http.MethodGet, listPath, "", "Prefer: wait=5")
	require.Equal(t, http.StatusOK, a.StatusCode)
	require.Equal(t, "wait=5", a.Header.Get("Preference-Applied"))
	require.Equal(t, []string{"new"}, a.page(t).keys())
	require.Equal(t, []time.Duration{5 * time.Second}, *waits)
}

func TestListWhoseFlushDoesNotFinishIsAnswered202(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, "new", "7")
	for _, left := range []operate.Left{{Dirty: 1}, {Dirty: 1, Retrying: 1}, {Dead: 1}} {
		b.flushing(t, left, nil)
		a := b.send(t, http.MethodGet, listPath, "", "Prefer: wait=5")
		require.Equal(t, http.StatusAccepted, a.StatusCode, left)
		require.Empty(t, a.Header.Get("Preference-Applied"))
		require.Equal(t, []string{"new"}, a.page(t).keys())
	}
	b.flushing(t, operate.Left{}, errSecret)
	require.Equal(t, http.StatusServiceUnavailable, b.send(t, http.MethodGet, listPath, "", "Prefer: wait=5").StatusCode)
	b.serve(t, b.service, api.Options{Lister: b.catalog}) // without a Flusher
	require.Equal(t, http.StatusAccepted, b.send(t, http.MethodGet, listPath, "", "Prefer: wait=5").StatusCode)
}

func TestWaitingListIsAnsweredAtShutdown(t *testing.T) {
	t.Parallel()
	ctx, shutdown := context.WithCancel(context.Background())
	defer shutdown()
	begun := make(chan struct{})
	b := serve(t, always(counter.Result{}), api.Options{
		Shutdown: ctx,
		Flusher: flusher(func(ctx context.Context, _ []counter.Key, _ time.Duration) (operate.Left, error) {
			close(begun)
			<-ctx.Done()
			return operate.Left{}, ctx.Err()
		}),
		Lister: lister(func(context.Context, string, counter.Key, int) (catalog.Page, error) { return catalog.Page{}, nil }),
	})
	waiting := b.sendAsync(t, http.MethodGet, listPath, "", "Prefer: wait=30")
	<-begun
	shutdown()
	require.Equal(t, http.StatusAccepted, (<-waiting).StatusCode)
}

func TestListPassesItsParametersOn(t *testing.T) {
	t.Parallel()
	var got []any
	b := serve(t, always(counter.Result{}), api.Options{
		Lister: lister(func(_ context.Context, prefix string, after counter.Key, limit int) (catalog.Page, error) {
			got = []any{prefix, after, limit}
			return catalog.Page{Next: "a:\u00e9?"}, nil
		}),
	})
	for query, want := range map[string][]any{
		"":                                {"", counter.Key(""), 100},
		"?prefix=&limit=1":                {"", counter.Key(""), 1},
		"?prefix=a%3A+%2B&limit=1000":     {"a: +", counter.Key(""), 1000},
		"?prefix=" + longestKey:           {longestKey, counter.Key(""), 100},
		"?cursor=YTrDqT8":                 {"", counter.Key("a:é?"), 100},
		"?cursor=YTrDqT8&prefix=a:%C3%A9": {"a:é", counter.Key("a:é?"), 100},
	} {
		a := b.send(t, http.MethodGet, listPath+query, "")
		require.Equal(t, http.StatusOK, a.StatusCode, a.text)
		require.Equal(t, want, got, query)
		require.Equal(t, "YTrDqT8", *a.page(t).Next)
	}
}

func TestCounterThatCannotBeReadIsAnErrorInItsPlace(t *testing.T) {
	t.Parallel()
	b := serve(t, always(counter.Result{}), api.Options{
		Lister: lister(func(context.Context, string, counter.Key, int) (catalog.Page, error) {
			return catalog.Page{Results: []counter.Result{
				{Counter: counter.Counter{Key: "a"}, Err: &counter.Error{Code: counter.CodeInternal, Err: errSecret}},
				{Counter: counter.Counter{Key: "b", Exists: true, Known: true}},
			}}, nil
		}),
	})
	got := b.send(t, http.MethodGet, listPath, "").counters(t)
	require.True(t, strings.HasPrefix(got[0], `{"key":"a","error":{"type":"/problems/internal"`), got[0])
	require.JSONEq(t, `{"key":"b","value":0,"version":0,"synced":false}`, got[1])
	require.Contains(t, b.log.String(), "hunter2")
}

func TestListFailsWithTheErrorOfItsServer(t *testing.T) {
	t.Parallel()
	for _, code := range []counter.Code{counter.CodeInternal, counter.CodeOverloaded, counter.CodeDatabaseUnavailable, counter.CodeCacheUnavailable} {
		b := serve(t, always(counter.Result{}), api.Options{
			Lister: lister(func(context.Context, string, counter.Key, int) (catalog.Page, error) {
				return catalog.Page{}, &counter.Error{Code: code, Err: errSecret}
			}),
		})
		a := b.send(t, http.MethodGet, listPath, "")
		require.Equal(t, api.Statuses()[code], a.StatusCode)
		require.Equal(t, string(code), a.problem(t).Code)
	}
}

func TestTopAnswersWithTheLargestCounters(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.Contains(t, b.send(t, http.MethodGet, topPath, "").problem(t).Detail, "AFTERWRITE_TOP=true")
	_, err := store.CreateTopIndex(t.Context(), b.Config.DatabaseURL, b.Config.Schema)
	require.NoError(t, err)
	b.serve(t, b.service, api.Options{Lister: catalog.New(catalog.Options{
		Cache: b.Cache, Store: b.Store, Counters: b.service, TopEnabled: true,
	})})
	b.insertRow(t, "a:1", 5, 1)
	b.insertRow(t, "a:2", 7, 1)
	b.insertRow(t, "b", 9, 1)
	a := b.send(t, http.MethodGet, topPath+"?prefix=a:&n=2&unknown=1", "")
	require.Equal(t, http.StatusOK, a.StatusCode)
	require.JSONEq(t, `{"counters":[{"key":"a:2","value":7,"version":1,"synced":true},{"key":"a:1","value":5,"version":1,"synced":true}],
		"complete":true}`, a.text)
}

func TestTopPassesItsParametersOn(t *testing.T) {
	t.Parallel()
	var got []any
	b := serve(t, always(counter.Result{}), api.Options{
		Lister: topper(func(_ context.Context, prefix string, n int) (catalog.Top, error) {
			got = []any{prefix, n}
			return catalog.Top{}, nil
		}),
	})
	for query, want := range map[string][]any{"": {"", 10}, "?n=1000&prefix=%C3%A9": {"é", 1000}, "?n=1": {"", 1}} {
		a := b.send(t, http.MethodGet, topPath+query, "")
		require.JSONEq(t, `{"counters":[],"complete":false}`, a.text)
		require.Equal(t, want, got)
	}
}

func TestTopFailsWithTheErrorOfItsServer(t *testing.T) {
	t.Parallel()
	for _, code := range []counter.Code{counter.CodeInternal, counter.CodeOverloaded, counter.CodeDatabaseUnavailable} {
		b := serve(t, always(counter.Result{}), api.Options{
			Lister: topper(func(context.Context, string, int) (catalog.Top, error) {
				return catalog.Top{}, &counter.Error{Code: code, Err: errSecret}
			}),
		})
		require.Equal(t, api.Statuses()[code], b.send(t, http.MethodGet, topPath, "").StatusCode)
	}
}

// badLists returns lists with an invalid query.
func badLists() []badRequest {
	var all []badRequest
	cursor := func(key string) string { return "cursor=" + base64.RawURLEncoding.EncodeToString([]byte(key)) }
	for query, detail := range map[string]string{
		"limit=0": "limit must be 1 to 1000", "limit=1001": `not "1001"`, "limit=-1": "limit", "limit=": "limit", "limit=ten": "limit",
		"limit=1e2": "limit", "limit=99999999999999999999": "limit", "limit=10&limit=10": "limit is given more than once",
		"prefix=a&prefix=b": "prefix is given more than once", "prefix=%00": "control character", "prefix=%FF": "not valid UTF-8",
		"prefix=a%0A": "control character", "prefix=" + longestKey + "k": "256 bytes", "prefix=%zz": "percent-encoding",
		"prefix=a%": "percent-encoding", "prefix=a;limit=1": "semicolon",
		"cursor=": "cursor must be the next_cursor", "cursor=%21": `not "!"`, "cursor=YQ==": "next_cursor", "cursor=YR": "next_cursor",
		cursor("a\n"): "next_cursor", cursor("\xff"): "next_cursor", cursor(longestKey + "k"): "next_cursor",
		cursor("a") + "&prefix=b": "with the same prefix", cursor("a") + "&" + cursor("a"): "cursor is given more than once",
	} {
		all = append(all, badRequest{
			name: "list " + query, method: "GET", target: listPath + "?" + query, status: 400, code: "invalid_query", detail: detail,
		})
	}
	for query, detail := range map[string]string{
		"n=0": "n must be 1 to 1000", "n=1001": `not "1001"`, "n=": "n must be", "n=1&n=1": "n is given more than once",
		"prefix=%00": "control character", "prefix=%zz": "percent-encoding", "prefix=a&prefix=b": "more than once",
	} {
		all = append(all, badRequest{
			name: "top " + query, method: "GET", target: topPath + "?" + query, status: 400, code: "invalid_query", detail: detail,
		})
	}
	return append(all,
		badRequest{name: "list, with a wait", method: "GET", target: listPath + "?limit=0", headers: []string{"Prefer: wait=5"}, status: 400, code: "invalid_query"},
		badRequest{name: "POST of a list", method: "POST", target: listPath, status: 405, code: "method_not_allowed", detail: "GET, HEAD"},
	)
}
