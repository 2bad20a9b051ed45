package dashboard

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/internal/store"
)

func TestAsynqmonListsNoMoreThanAHundredTasks(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{
		"":                           "",
		"page=2":                     "page=2",
		"page=2&size=50":             "page=2&size=50",
		"page=2&size=101":            "page=2&size=100",
		"size=100000000000000000000": "size=100",
		"size=-1":                    "size=100",
		"size=nonsense":              "size=nonsense",
		"size=100000&size=1":         "size=100",
	} {
		u := &url.URL{RawQuery: query}
		boundSize(u)
		require.Equal(t, want, u.RawQuery, query)
	}
}

// newTestAudit returns an audit log in a Postgres of the test's own.
func newTestAudit(t *testing.T) *audit {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	s, err := store.Open(localtest.PostgresURL(t, func(url string) error { return store.MigrateURL(context.Background(), url) }),
		store.Options{Logger: log, MaxConns: 2})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return &audit{entries: s, log: log}
}

func TestOutcomeOfACallIsAsynqmonsAnswer(t *testing.T) {
	t.Parallel()
	a := newTestAudit(t)
	for name, test := range map[string]struct {
		answer  func(http.ResponseWriter)
		outcome string
		failed  bool
	}{
		"done":       {func(w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) }, "answered 204", false},
		"done, to n": {body(`{"deleted":7}`), `answered 200: {"deleted":7}`, false},
		"all of a batch": {
			body(`{"deleted_ids":["a"],"failed_ids":[]}` + "\n"), `answered 200: {"deleted_ids":["a"],"failed_ids":[]}`, false,
		},
		"some of a batch": {
			body(`{"pending_ids":["a"],"error_ids":["b","c"]}`), `answered 200, but 2 tasks failed: {"pending_ids":["a"],"error_ids":["b","c"]}`, true,
		},
		"some of a long batch": {
			body(`{"deleted_ids":["` + strings.Repeat("a", 2*maxQuoted) + `"],"failed_ids":["b"]}`),
			`answered 200, but 1 task failed: {"deleted_ids":["aaa`, true,
		},
		"refused": {
			func(w http.ResponseWriter) { http.Error(w, "task not found", http.StatusNotFound) }, "answered 404: task not found", true,
		},
		"a redirect":     {func(w http.ResponseWriter) { w.WriteHeader(http.StatusMovedPermanently) }, "answered 301", true},
		"something else": {body("<!doctype html>"), "answered 200, but the answer cannot be parsed: <!doctype html>", true},
		"an answer beyond the limit": {
			func(w http.ResponseWriter) {
				body(`{"deleted_ids":["`)(w)
				for range maxAnswer>>20 + 1 {
					body(strings.Repeat("a", 1<<20))(w)
				}
				body(`"]}`)(w)
			}, "answered 200, but the answer cannot be parsed: ", true,
		},
		"nothing": {func(http.ResponseWriter) {}, "Asynqmon sent no complete answer", true},
		"a panic": {func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, "Asynqmon sent no complete answer", true},
		"a panic after the answer": {
			func(w http.ResponseWriter) { body(`{"deleted":7}`)(w); panic(http.ErrAbortHandler) }, "Asynqmon sent no complete answer", true,
		},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodDelete, "/asynq/api/"+url.PathEscape(name), http.NoBody)
		func() {
			defer func() { _ = recover() }() // as net/http does
			a.call(httptest.NewRecorder(), r, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { test.answer(w) }))
		}()
		noted, err := a.entries.Actions(t.Context(), 0, 1)
		require.NoError(t, err)
		require.Equal(t, r.URL.Path, noted[0].Target)
		require.NotNil(t, noted[0].Outcome, name)
		require.True(t, strings.HasPrefix(*noted[0].Outcome, test.outcome), "%s: %s", name, *noted[0].Outcome)
		require.Equal(t, test.failed, noted[0].Failed, name)
	}
}

// body returns a handler that answers with the text.
func body(text string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { _, _ = io.WriteString(w, text) }
}

func TestSeveralDiscardsEndAtTheTimeout(t *testing.T) {
	t.Parallel()
	p := &deadPage{audit: newTestAudit(t)}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/dead/discard", http.NoBody)
	over, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	said, err := p.drop(over, r, discardData{Letters: make([]letterView, 3)})
	require.Equal(t, "discarded 0, kept 3", said)
	require.Equal(t, "the action took too long; it may be done in part, and it may be repeated", operate.Explain(err).Detail)
	noted, err := p.entries.Actions(t.Context(), 0, 10)
	require.NoError(t, err)
	require.Empty(t, noted)
}
