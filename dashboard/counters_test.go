package dashboard_test

import (
	"context"
	entities "html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/dashboard"
	"github.com/afterwrite/afterwrite/dashboard/auth"
	"github.com/afterwrite/afterwrite/internal/catalog"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
)

// insert adds rows to Postgres, without entries in Redis. Their value is 7.
func (b *testBundle) insert(t *testing.T, keys ...string) {
	t.Helper()
	for _, key := range keys {
		_, err := b.db.ExecContext(t.Context(), "INSERT INTO counters (key, value, version, updated_at) VALUES ($1, 7, 3, now())", key)
		require.NoError(t, err)
	}
}

// insertMany adds n rows with keys in order.
func (b *testBundle) insertMany(t *testing.T, prefix string, n int) {
	t.Helper()
	_, err := b.db.ExecContext(t.Context(), `INSERT INTO counters (key, value, version, updated_at)
		SELECT $1 || lpad(n::text, 4, '0'), n, 1, now() FROM generate_series(1, $2::int) AS n`, prefix, n)
	require.NoError(t, err)
}

var (
	rowLink  = regexp.MustCompile(`<th scope="row"><a class="mono counter-key" href="([^"]*)"><bdi>([^<]*)</bdi></a></th>`)
	nextLink = regexp.MustCompile(`rel="next" href="([^"]*)"`)
)

// listed returns the keys of a page of the list, and the path of the next page.
func listed(page string) (keys []string, next string) {
	for _, match := range rowLink.FindAllStringSubmatch(page, -1) {
		keys = append(keys, entities.UnescapeString(match[2]))
	}
	if match := nextLink.FindStringSubmatch(page); match != nil {
		next = entities.UnescapeString(match[1])
	}
	return keys, next
}

func TestCountersAreListedWithTheirPresentValues(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insert(t, "page:b", "page:a", "other")
	b.write(t, "page:b", 1_234_567)
	b.write(t, "page:never-flushed", 1)
	before := b.redis.DBSize(t.Context()).Val()

	page := b.get(t, "/keys?prefix=page:").Body.String()

	keys, next := listed(page)
	require.Equal(t, []string{"page:a", "page:b"}, keys)
	require.Empty(t, next)
	require.Regexp(t, `(?s)<bdi>page:a</bdi></a></th>\s*<td data-label="Value" class="num"><span class="value">7</span></td>\s*`+
		`<td data-label="Version" class="num">3</td>\s*<td data-label="State"><span class="note">clean</span>`, page)
	require.Regexp(t, `(?s)<bdi>page:b</bdi></a></th>\s*<td data-label="Value" class="num"><span class="value">1,234,567</span></td>\s*`+
		`<td data-label="Version" class="num">4</td>\s*<td data-label="State"><span class="pill warn">dirty</span>`, page)
	all, _ := listed(b.get(t, "/keys").Body.String())
	require.Equal(t, []string{"other", "page:a", "page:b"}, all)
	require.Equal(t, before, b.redis.DBSize(t.Context()).Val(), "listing loads nothing into Redis")
}

func TestCountersArePaged(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insertMany(t, "page:", 250)
	b.insert(t, "pagf")
	var all []string
	var sizes []int
	for next := "/keys?prefix=page%3A"; next != ""; {
		answer := b.get(t, next)
		require.Equal(t, http.StatusOK, answer.Code)
		var keys []string
		keys, next = listed(answer.Body.String())
		all, sizes = append(all, keys...), append(sizes, len(keys))
		if len(sizes) > 1 {
			require.Contains(t, answer.Body.String(), `<a class="button" href="/keys?prefix=page%3a">First page</a>`)
		}
		require.LessOrEqual(t, len(sizes), 3)
	}
	require.Equal(t, []int{100, 100, 50}, sizes)
	require.IsIncreasing(t, all)
	require.Equal(t, "page:0001", all[0])
	require.Equal(t, "page:0250", all[249])

	keys, _ := listed(b.get(t, "/keys?prefix=page:&after=%00").Body.String())
	require.Equal(t, "page:0001", keys[0], "a cursor that is none means the first page")
	require.Contains(t, b.get(t, "/keys?prefix=page:&after=page:0250").Body.String(), "There are no more.")
}

// hostile are keys that may break a page, a link or the reader's view of them.
var hostile = []string{
	`"><script>alert(1)</script>`,
	`'onmouseover='alert(1)`,
	`</bdi></a><h1>pwned</h1>`,
	`a&amp;b=c&key=other`,
	`javascript:alert(1)`,
	`../../dead?x#y`,
	`a+b c%20d%zz;e`,
	`{{.Key}} ${x} <%= x %>`,
	"\u202emoc.elpmaxe\u202c \u2066x", // right to left, and not closed
	"عداد:صفحة",
	"\u200b",
	"  two  spaces  ",
	"e\u0301🏳️‍🌈",
	strings.Repeat("W", 255),
	strings.Repeat("\U0001F600", 63) + "abc",
}

func TestHostileKeysAreListedAndLinked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insert(t, hostile...)

	page := b.get(t, "/keys").Body.String()

	require.NotContains(t, page, "<script>alert")
	require.NotContains(t, page, "<h1>pwned")
	keys, _ := listed(page)
	require.ElementsMatch(t, hostile, keys)
	for _, match := range rowLink.FindAllStringSubmatch(page, -1) {
		link, err := url.Parse(entities.UnescapeString(match[1]))
		require.NoError(t, err)
		key := entities.UnescapeString(match[2])
		require.Equal(t, "/keys", link.Path)
		require.Equal(t, url.Values{"key": {key}}, link.Query())
		answer := b.get(t, link.String())
		require.Equal(t, http.StatusOK, answer.Code, key)
		require.Equal(t, key, entities.UnescapeString(between(t, answer.Body.String(), `counter-key"><bdi>`, "</bdi>")))
		require.NotContains(t, answer.Body.String(), "<script>alert")
		require.Contains(t, answer.Body.String(), "in Postgres only", key)

		found, _ := listed(b.get(t, "/keys?"+url.Values{"prefix": {key}}.Encode()).Body.String())
		require.Equal(t, []string{key}, found, "a key is its own prefix")
	}
}

func TestTextThatBeginsNoKeyIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for query, why := range map[string]string{
		"prefix=a%00":                        "the key has a control character (U&#43;0000) at byte 1",
		"prefix=a%ff":                        "the key is not valid UTF-8",
		"prefix=" + strings.Repeat("a", 256): "the key has 256 bytes",
		"key=" + strings.Repeat("a", 256):    "the key has 256 bytes",
		"key=%ff":                            "the key is not valid UTF-8",
		"prefix=" + strings.Repeat("%F0%9F%98%80", 65): "the key has 260 bytes",
	} {
		answer := b.get(t, "/keys?"+query)
		require.Equal(t, http.StatusBadRequest, answer.Code, query)
		require.Contains(t, answer.Body.String(), why, query)
	}
}

func TestOpenLeadsToTheCounter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	answer := b.get(t, "/keys?prefix=a%26b%3Dc&open=1")
	require.Equal(t, http.StatusSeeOther, answer.Code)
	require.Equal(t, "/keys?key=a%26b%3Dc", answer.Header().Get("Location"))
	require.Equal(t, http.StatusOK, b.get(t, "/keys?prefix=&open=1").Code, "without a key it lists")
}

func TestEmptyListsSayWhy(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.Contains(t, b.get(t, "/keys").Body.String(), "There are no counters yet.")
	require.Contains(t, b.get(t, "/keys?prefix=<b>").Body.String(), "No counter's key begins with “<bdi>&lt;b&gt;</bdi>”.")

	b.insertMany(t, "page:", 150)
	_, err := b.db.ExecContext(t.Context(), "UPDATE counters SET deleted_at = now() WHERE key <= 'page:0120'")
	require.NoError(t, err)
	page := b.get(t, "/keys").Body.String()
	require.Contains(t, page, "This page has deleted counters only.")
	_, next := listed(page)
	keys, _ := listed(b.get(t, next).Body.String())
	require.Len(t, keys, 30)
}

func TestCounterThatCannotBeReadDoesNotHideTheOthers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insert(t, "a", "b")
	require.NoError(t, b.redis.Set(t.Context(), "{aw:"+b.cache.Shard("a").String()+"}:c:a", "hello", 0).Err())
	page := b.get(t, "/keys").Body.String()
	keys, _ := listed(page)
	require.Equal(t, []string{"a", "b"}, keys)
	require.Equal(t, 1, strings.Count(page, "cannot be read"))
}

func TestListSaysThatPostgresHangs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.write(t, "a", 17)
	slow, err := store.Open(b.url, store.Options{Logger: b.log, MaxConns: 8, StatementTimeout: time.Hour})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, slow.Close()) })
	patient := *b
	patient.store = slow
	olga := patient.serve(t, false, auth.Options{})
	lock, err := b.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = lock.ExecContext(t.Context(), "LOCK TABLE counters IN ACCESS EXCLUSIVE MODE")
	require.NoError(t, err)

	got := olga.get(t, "/keys?prefix=a")

	require.Equal(t, http.StatusServiceUnavailable, got.status)
	require.Contains(t, got.body, "Postgres does not answer</strong>, or is slow.")
	require.Contains(t, got.body, `value="a"`, "the form keeps what was typed")
	require.Contains(t, olga.get(t, "/keys?key=a").body, "17")
	require.NoError(t, lock.Rollback())
	require.Equal(t, http.StatusOK, olga.get(t, "/keys?prefix=a").status)
}

func TestCountersAreListedByValue(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insertMany(t, "page:", 150)
	b.insert(t, "other")

	off := b.get(t, "/keys?by=value&prefix=page:")
	require.Equal(t, http.StatusOK, off.Code)
	require.Contains(t, off.Body.String(), "Listing by value is off.")
	require.Contains(t, off.Body.String(), "run <code>afterwrite migrate</code> with AFTERWRITE_TOP=true")
	require.NotContains(t, b.lines.String(), "could not be listed", "that is a setting, and no failure")

	_, err := store.CreateTopIndex(t.Context(), b.url, store.DefaultSchema)
	require.NoError(t, err)
	b.write(t, "page:0149", 1_000)
	page := b.get(t, "/keys?by=value&prefix=page:").Body.String()
	keys, next := listed(page)
	require.Len(t, keys, 100)
	require.Equal(t, []string{"page:0149", "page:0150", "page:0148"}, keys[:3], "in the order of the present values")
	require.Empty(t, next)
	require.NotContains(t, page, "There may be larger counters")
	require.Contains(t, page, `<input type="hidden" form="find" name="by" value="value">`, "the next search keeps the order")
	require.Contains(t, page, `href="/keys?prefix=page%3a">By key</a>`)
	all, _ := listed(b.get(t, "/keys?by=value").Body.String())
	require.Equal(t, keys[:90], all[:90])

	byKey := b.get(t, "/keys?prefix=page:").Body.String()
	require.Contains(t, byKey, `href="/keys?by=value&amp;prefix=page%3a">By value</a>`)
	require.NotContains(t, byKey, `name="by"`)
}

func TestTopThatMayLackCountersSaysSo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	partial := lister{top: catalog.Top{Results: []counter.Result{{Counter: counter.Counter{Key: "a", Value: 5, Exists: true}}}}}
	require.Contains(t, b.list(t, partial, "/keys?by=value").Body.String(), "There may be larger counters")
	partial.top.Complete = true
	require.NotContains(t, b.list(t, partial, "/keys?by=value").Body.String(), "There may be larger counters")
}

// lister implements dashboard.Lister with a list by value, or an error.
type lister struct {
	top catalog.Top
	err error
}

func (l lister) Top(context.Context, string, int) (catalog.Top, error) { return l.top, l.err }

// list requests a page of a dashboard with this lister.
func (b *testBundle) list(t *testing.T, l lister, path string) *httptest.ResponseRecorder {
	t.Helper()
	pages, err := dashboard.New(dashboard.Options{
		Redis: b.redis, Cache: b.cache, Store: b.store, Lister: l, Access: auth.Options{Address: "127.0.0.1:8081"}, Logger: b.log,
	})
	require.NoError(t, err)
	one := *b
	one.handler = pages
	return one.get(t, path)
}

func (l lister) List(context.Context, string, counter.Key, int) (catalog.Page, error) {
	return catalog.Page{}, l.err
}

func TestListSaysWhatIsWrongWithoutDetails(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for code, text := range map[counter.Code]string{
		counter.CodeDatabaseUnavailable: "Postgres does not answer",
		counter.CodeOverloaded:          "This dashboard is busy with other lists.",
		counter.CodeCacheUnavailable:    "Redis does not answer.",
		counter.CodeInternal:            "The counters cannot be listed.",
	} {
		for _, path := range []string{"/keys", "/keys?by=value"} {
			answer := b.list(t, lister{err: &counter.Error{Code: code, Err: http.ErrBodyNotAllowed}}, path)
			require.Equal(t, http.StatusServiceUnavailable, answer.Code)
			require.Contains(t, answer.Body.String(), text)
			require.NotContains(t, answer.Body.String(), http.ErrBodyNotAllowed.Error())
		}
	}
	require.Contains(t, b.lines.String(), http.ErrBodyNotAllowed.Error(), "the log has it")
}
