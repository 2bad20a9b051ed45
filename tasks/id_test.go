package tasks_test

import (
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/tasks"
)

func TestIDsOfPlainKeysAreTheKeys(t *testing.T) {
	t.Parallel()
	for key, want := range map[counter.Key]string{
		"page:home":             "page:home",
		"a.b_c-D9":              "a.b_c-D9",
		"..":                    "..", // as a part of a path it is flush:.., which means nothing
		"page/home":             "page~2Fhome",
		"~":                     "~7E",
		"~2F":                   "~7E2F",
		"b?x":                   "b~3Fx",
		"100% {a} b":            "100~25~20~7Ba~7D~20b",
		`\`:                     "~5C",
		"é":                     "~C3~A9",
		"x/../../:delete_all#;": "x~2F..~2F..~2F:delete_all~23~3B",
	} {
		require.Equal(t, "flush:"+want, tasks.FlushID(key))
		require.Equal(t, "retry:"+want, tasks.RetryID(key))
	}
	require.Len(t, tasks.FlushID(counter.Key(strings.Repeat("/", counter.MaxKeyBytes))), len("flush:")+3*counter.MaxKeyBytes)
}

var escaped = regexp.MustCompile(`~[0-9A-F]{2}`)

func FuzzIDsOfKeysAreTheirOwnAndSafeInAPath(f *testing.F) {
	for _, key := range []string{"a", "a/b", "x/../../pending_tasks:delete_all", "b?x", "~2F", "..", "🙂", "%2e%2e", `a\..\b`} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, text string) {
		key, err := counter.ParseKey(text)
		if err != nil {
			return
		}
		id := tasks.FlushID(key)
		require.Equal(t, "flush:"+text, escaped.ReplaceAllStringFunc(id, func(hex string) string {
			c, err := strconv.ParseUint(hex[1:], 16, 8)
			require.NoError(t, err)
			return string([]byte{byte(c)})
		}), "so no two keys share one")

		page, err := url.Parse("http://localhost/asynq/queues/aw-flush")
		require.NoError(t, err)
		call, err := page.Parse("/asynq/api/queues/aw-flush/pending_tasks/" + id + ":archive")
		require.NoError(t, err)
		require.Equal(t, "/asynq/api/queues/aw-flush/pending_tasks/"+id+":archive", call.RequestURI())
	})
}

func BenchmarkFlushID(b *testing.B) {
	for _, key := range []counter.Key{"page:home", "page/home", counter.Key(strings.Repeat("x", counter.MaxKeyBytes))} {
		b.Run(string(key[:min(len(key), 9)]), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = tasks.FlushID(key)
			}
		})
	}
}
