package dashboard_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/dashboard"
	"github.com/afterwrite/afterwrite/dashboard/auth"
	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/catalog"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// setupHistory is setup with histories of all counters.
func setupHistory(t *testing.T) *testBundle {
	t.Helper()
	b := setup(t)
	b.cache = cache.New(b.redis, cache.Options{Shards: 64, CleanTTL: time.Hour, History: func(counter.Key) bool { return true }})
	service := writepath.Open(writepath.Parts{Cache: b.cache, Store: b.store})
	t.Cleanup(service.Close)
	lists := catalog.New(catalog.Options{Cache: b.cache, Store: b.store, Counters: service})
	var err error
	b.handler, err = dashboard.New(dashboard.Options{
		Redis: b.redis, Cache: b.cache, Store: b.store, Lister: lists, Historian: lists, Access: auth.Options{Address: "127.0.0.1:8081"},
		Logger: b.log,
	})
	require.NoError(t, err)
	return b
}

// record writes a history to Postgres: a second between values, the last one now. The first sets the value, and the others add to it.
func (b *testBundle) record(t *testing.T, key counter.Key, origin counter.Origin, values ...int64) {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Millisecond)
	all, before := make([]counter.Record, len(values)), int64(0)
	for i, value := range values {
		all[i] = counter.Record{
			Version: int64(i + 1), Lineage: 7, At: now.Add(time.Duration(i+1-len(values)) * time.Second), Change: counter.Incremented,
			Value: value, Known: true, Origin: origin,
		}
		all[i].Amount = value - before
		before = value
	}
	all[0].Change = counter.Assigned
	row := counter.Row{Key: key, Value: values[len(values)-1], Version: int64(len(values)), Lineage: 7}
	_, err := b.store.UpsertHistory(t.Context(), []counter.Row{row}, store.History{key: all})
	require.NoError(t, err)
}

var (
	operationRow = regexp.MustCompile(`(?s)<td data-label="Version" class="num">(.*?)</td>.*?<td data-label="Operation">(.*?)</td>` +
		`.*?<td data-label="Amount" class="num">(.*?)</td>.*?<span class="value">(.*?)</span>` +
		`.*?<td data-label="Who" class="target">(.*?)</td>` +
		`.*?<td data-label="Note" class="target">(.*?)</td>`)
	tags = regexp.MustCompile(`<[^>]*>`)
)

// operationRows returns the table of operations.
func operationRows(page string) []string {
	var lines []string
	for _, match := range operationRow.FindAllStringSubmatch(page, -1) {
		lines = append(lines, strings.ReplaceAll(tags.ReplaceAllString(strings.Join(match[1:], "|"), ""), "&#43;", "+"))
	}
	return lines
}

func TestCounterShowsItsHistory(t *testing.T) {
	t.Parallel()
	b := setupHistory(t)
	b.record(t, "likes:7", counter.Origin{Caller: "web", Request: "r1", Note: `<script>alert("x")</script>`}, 1_000, 1_500, 500)
	b.write(t, "likes:7", 0)

	page := b.get(t, "/keys?key=likes:7").Body.String()

	require.Equal(t, []string{
		"4|set not flushed|0|0||",
		"3|increment|-1,000|500|web|&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;",
		"2|increment|+500|1,500|web|&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;",
		"1|set|1,000|1,000|web|&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;",
	}, operationRows(page))
	require.NotContains(t, page, "<script>alert")
	require.Contains(t, page, `<span class="pill warn">1 not flushed</span>`)
	require.Contains(t, page, `<span class="scale highest">1,500</span><span class="scale zero">0</span>`)
	require.Regexp(t, `<path class="line one" d="M0\.0 66\.7H\d+\.\dV0\.0H\d+\.\dV133\.3H900\.0V200\.0"/>`, page)
}

func TestHistoryShowsTheLast50Operations(t *testing.T) {
	t.Parallel()
	b := setupHistory(t)
	values := make([]int64, 600)
	for i := range values {
		values[i] = int64(i + 1)
	}
	b.record(t, "likes:7", counter.Origin{}, values...)
	page := b.get(t, "/keys?key=likes:7").Body.String()
	rows := operationRows(page)
	require.Len(t, rows, 50)
	require.Equal(t, "600|increment|+1|600||", rows[0])
	require.Equal(t, "551|increment|+1|551||", rows[49])
	require.Contains(t, page, "each of the last 500 operations")
	require.NotContains(t, page, "not flushed")
}

func TestHistoryOfADeletedCounterHasAGap(t *testing.T) {
	t.Parallel()
	b := setupHistory(t)
	b.record(t, "likes:7", counter.Origin{}, 5, 5, 5, 5)
	_, err := b.db.ExecContext(t.Context(), `UPDATE operations SET operation = 'delete', amount = NULL, value = 0 WHERE version = 2`)
	require.NoError(t, err)
	page := b.get(t, "/keys?key=likes:7").Body.String()
	require.Contains(t, page, `<span class="scale half">5</span>`)
	require.Contains(t, page, `d="M0.0 100.0H300.0M600.0 100.0H900.0V100.0"`)
	require.Contains(t, operationRows(page), "2|delete||deleted||")
}

func TestCounterWithoutAHistoryShowsNone(t *testing.T) {
	t.Parallel()
	for _, b := range []*testBundle{setup(t), setupHistory(t)} {
		b.insert(t, "views:7")
		require.NotContains(t, b.get(t, "/keys?key=views:7").Body.String(), `id="history"`)
	}
}

// Without two values there is nothing to draw.
func TestHistoryWithoutValuesIsATable(t *testing.T) {
	t.Parallel()
	b := setupHistory(t)
	writer := b.cache.NewWriter(func() bool { return true })
	defer writer.Close()
	for _, by := range []int64{3, 4} {
		op := counter.Operation{Key: "likes:7", Kind: counter.Increment, Amount: by}
		require.NoError(t, writer.Do(t.Context(), []cache.Write{{Operation: op, Blind: true}})[0].Err)
	}
	list := "{aw:" + b.cache.Shard("likes:7").String() + "}:h:likes:7"
	words := strings.SplitN(b.redis.LIndex(t.Context(), list, 1).Val(), " ", 3)
	require.Len(t, words, 3)
	require.NoError(t, b.redis.LSet(t.Context(), list, 1, words[0]+" - "+words[2]).Err())
	page := b.get(t, "/keys?key=likes:7").Body.String()
	require.Equal(t, []string{"2|increment not flushed|+4|not known||", "1|increment not flushed|+3|3||"}, operationRows(page))
	require.NotContains(t, page, `<svg viewBox="0 0 900`)
}

func TestHistoryThatCannotBeReadIsLogged(t *testing.T) {
	t.Parallel()
	b := setupHistory(t)
	b.record(t, "likes:7", counter.Origin{}, 1, 2)
	_, err := b.db.ExecContext(t.Context(), `DROP TABLE operations`)
	require.NoError(t, err)
	answer := b.get(t, "/keys?key=likes:7")
	require.Equal(t, http.StatusOK, answer.Code)
	require.Contains(t, answer.Body.String(), "in Postgres only")
	require.NotContains(t, answer.Body.String(), `id="history"`)
	require.Contains(t, fmt.Sprint(b.lines), "history of a counter could not be read")
}
