package browser_test

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// listed waits until the list of counters with the prefix has n rows.
func (b *tab) listed(t *testing.T, s *system, prefix string, n int) {
	t.Helper()
	localtest.Eventually(t, patience, func() (bool, string) {
		b.visit(t, s.dashboard.url("/keys?prefix="+prefix))
		return evaluate[int](t, b, "document.querySelectorAll('.counters tbody tr').length") == n, b.text(t, "main")
	})
}

func TestCountersAreBrowsedByKeyboardWithoutScripts(t *testing.T) {
	t.Parallel()
	s := start(t)
	for i := range 3 {
		var batch []string
		for j := range 50 {
			batch = append(batch, fmt.Sprintf(`{"op":"set","key":"page:%03d","value":%d}`, 50*i+j, 1_000_000+j))
		}
		require.Equal(t, "200 OK", s.send(t.Context(), strings.Join(batch, ",")))
	}
	s.set(t, "other", 1)
	b := open(t)
	b.withoutScripts(t)
	b.listed(t, s, "page:14", 10) // all have been flushed, in one epoch of their shard or another
	b.listed(t, s, "page:", 100)

	b.visit(t, s.dashboard.url("/keys"))
	b.focus(t, "#prefix")
	b.do(t, chromedp.KeyEvent("page:"), chromedp.KeyEvent(kb.Enter))
	b.waitForText(t, ".counters caption", "whose keys begin with page:")
	b.readable(t, "the list of counters")
	require.Equal(t, "page:000", b.text(t, ".counters tbody tr:first-child th"))
	b.focus(t, `[rel="next"]`)
	b.do(t, chromedp.KeyEvent(kb.Enter))
	b.waitForText(t, ".counters tbody tr:first-child th", "page:100")
	b.readable(t, "the second page of the list of counters")
	b.focus(t, ".counters tbody tr:first-child a")
	b.do(t, chromedp.KeyEvent(kb.Enter))
	b.waitForText(t, "#state", "page:100")
	b.readable(t, "a counter")

	b.visit(t, s.dashboard.url("/keys?prefix=page:"))
	b.click(t, ".orders a:not([aria-current])")
	b.waitForText(t, ".notice", "Listing by value is off.")
	b.readable(t, "how to list by value")
	migrate := s.command(t, "migrate")
	migrate.Env = append(migrate.Env, "AFTERWRITE_TOP=true")
	out, err := migrate.CombinedOutput()
	require.NoError(t, err, "%s", out)
	b.focus(t, "#prefix")
	b.do(t, chromedp.KeyEvent(kb.Enter))
	b.waitForText(t, ".counters caption", "whose keys begin with page:, the largest first")
	require.Equal(t, "page:049", b.text(t, ".counters tbody tr:first-child th"))
	b.readable(t, "the list by value")

	b.visit(t, s.dashboard.url("/keys?prefix=other"))
	b.click(t, `[name="open"]`)
	b.waitForText(t, "#state", "other")
	b.requireNoProblems(t, s.dashboard)
}

func TestHostileKeysDoNotBreakThePages(t *testing.T) {
	t.Parallel()
	s := start(t)
	keys := []string{
		`x"><script>document.title='pwned'</script>`, "x</bdi></a><h1>pwned</h1>", "x\u202emoc.elpmaxe", "xعداد:صفحة", "x\u200b",
		"x  two  spaces  ", "x" + strings.Repeat("W", 254), "x" + strings.Repeat("\U0001F600", 63), "x/../../dead?a#b&c=d%20e+f",
	}
	for _, key := range keys {
		s.set(t, key, -9_223_372_036_854_775_808)
	}
	b := open(t)
	b.listed(t, s, "x", len(keys))
	require.ElementsMatch(t, keys, evaluate[[]string](t, b, "[...document.querySelectorAll('.counters th a')].map((a) => a.textContent)"))
	require.Equal(t, "Counters · afterwrite", b.title(t))
	b.readable(t, "a list of hostile keys")
	for i := range keys {
		b.listed(t, s, "x", len(keys))
		link := fmt.Sprintf(".counters tbody tr:nth-child(%d) a", i+1)
		key := b.text(t, link)
		b.click(t, link)
		b.do(t, chromedp.WaitVisible("#state"))
		require.Equal(t, key, b.text(t, "#state"))
		require.Equal(t, "Counters · afterwrite", b.title(t))
		b.readable(t, key)
	}
	b.requireNoProblems(t, s.dashboard)
}

func TestHistoryOfACounterIsReadable(t *testing.T) {
	t.Parallel()
	s := start(t, "AFTERWRITE_HISTORY=likes:*")
	note := `<script>document.title='pwned'</script>` + strings.Repeat("W", 80)
	for _, op := range []string{`"op":"set","value":10`, `"op":"increment"`, `"op":"increment","by":-1`, `"op":"increment"`} {
		require.Equal(t, "200 OK", s.send(t.Context(), fmt.Sprintf(`{"key":"likes:7","note":%q,%s}`, note, op)))
	}
	b := open(t)
	localtest.Eventually(t, patience, func() (bool, string) {
		b.visit(t, s.dashboard.url("/keys?key=likes:7"))
		text := b.text(t, "main")
		return strings.Contains(text, "History") && !strings.Contains(text, "not flushed"), text
	})
	require.Equal(t, []string{"4", "3", "2", "1"},
		evaluate[[]string](t, b, "[...document.querySelectorAll('.operations tbody td:first-child')].map((e) => e.textContent)"))
	require.Equal(t, note, b.text(t, ".operations tbody tr:first-child td:last-child"))
	require.Equal(t, "Counters · afterwrite", b.title(t))
	b.readable(t, "the history of a counter")
	b.requireNoProblems(t, s.dashboard)
}

func TestRequestsAreShownLiveByKeyAndByCode(t *testing.T) {
	t.Parallel()
	web, batch := sha256.Sum256([]byte("w")), sha256.Sum256([]byte("b"))
	s := start(t, fmt.Sprintf("AFTERWRITE_API_KEYS=web:%x:write,%s:%x:read+write", web, strings.Repeat("batch", 12), batch))
	b := open(t)
	b.visit(t, s.dashboard.url("/requests"))
	b.waitForText(t, connection, "live")
	require.Contains(t, b.text(t, `[data-part="rejections"]`), "None since")
	for _, key := range []string{"w", "w", "b", "unknown"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.api.url("/v1/counters/a"), http.NoBody)
		require.NoError(t, err)
		request.Header.Set("Authorization", "Bearer "+key)
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
	}
	b.waitForText(t, `[data-part="keys"]`, "web")
	text := b.waitForText(t, `[data-part="keys"]`, "batchbatch")
	require.Contains(t, text, "no key, or an unknown one")
	require.Regexp(t, `web\d(\.\d)?/s\d\d %`, text)
	text = b.waitForText(t, `[data-part="rejections"]`, "unauthorized")
	require.Contains(t, text, "Not applied. The request needs one header Authorization")
	require.Contains(t, text, "forbidden")
	require.Contains(t, text, "not_found")
	b.readable(t, "/requests")
	b.requireNoProblems(t, s.dashboard)
}
