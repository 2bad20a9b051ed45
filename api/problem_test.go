package api_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

var errSecret = errors.New("dial tcp 10.1.2.3:6379: user aw password hunter2: refused")

// failing returns Counters that give every operation an error with this code. Its Err has a secret.
func failing(code counter.Code, retryAfter time.Duration) counters {
	return always(counter.Result{Err: &counter.Error{Code: code, Detail: "for the client", Err: errSecret, RetryAfter: retryAfter}})
}

func TestEveryCodeHasItsDocumentedStatus(t *testing.T) {
	t.Parallel()
	require.Equal(t, map[counter.Code]int{
		counter.CodeInvalidKey: 400, counter.CodeInvalidBody: 400, counter.CodeUnknownField: 400, counter.CodeTooManyOperations: 400,
		counter.CodeBodyTooLarge: 413, counter.CodeUnsupportedMediaType: 415, counter.CodeMethodNotAllowed: 405,
		counter.CodeNotFound: 404, counter.CodeOverflow: 409, counter.CodeBackpressure: 503, counter.CodeOverloaded: 503,
		counter.CodeCacheFull: 503, counter.CodeCacheUnavailable: 503, counter.CodeDatabaseUnavailable: 503,
		counter.CodeOutcomeUnknown: 504, counter.CodeInternal: 500,
		counter.CodeInvalidIdempotencyKey: 400, counter.CodeIdempotencyKeyReused: 422,
		counter.CodeNotDurable: 503, counter.CodeUnsupportedDurability: 400,
		"unauthorized": 401, "forbidden": 403, "rate_limited": 429, "invalid_query": 400, "conflict": 409,
		counter.CodeOutOfBounds: 409, counter.CodeVersionMismatch: 412, "invalid_precondition": 400,
	}, api.Statuses())
}

func TestCauseOfAnErrorIsLoggedAndNotSent(t *testing.T) {
	t.Parallel()
	for code, status := range api.Statuses() {
		if status < 500 {
			continue
		}
		b := serve(t, failing(code, 0), api.Options{})
		for method, target := range map[string]string{
			http.MethodGet: "/v1/counters/a", http.MethodPost: "/v1/counters/a/increment", http.MethodDelete: "/v1/counters/a",
		} {
			a := b.send(t, method, target, "", "X-Request-Id: id-"+method)

			require.Equal(t, status, a.StatusCode, code)
			require.Equal(t, string(code), a.problem(t).Code)
			require.Equal(t, "for the client", a.problem(t).Detail)
			require.NotContains(t, a.text, "hunter2")
			require.Equal(t, 1, strings.Count(b.log.String(), `"request_id":"id-`+method+`"`), b.log.String())
			require.Contains(t, b.log.String(), "hunter2")
		}
	}
}

func TestEvery503HasRetryAfter(t *testing.T) {
	t.Parallel()
	for _, code := range []counter.Code{
		counter.CodeBackpressure, counter.CodeOverloaded, counter.CodeCacheFull, counter.CodeCacheUnavailable, counter.CodeDatabaseUnavailable,
	} {
		for after, want := range map[time.Duration]string{
			0: "1", time.Millisecond: "1", time.Second: "1", 1001 * time.Millisecond: "2", time.Minute: "60", -time.Second: "1",
		} {
			b := serve(t, failing(code, after), api.Options{})
			a := b.send(t, http.MethodGet, "/v1/counters/a", "")
			require.Equal(t, http.StatusServiceUnavailable, a.StatusCode)
			require.Equal(t, want, a.Header.Get("Retry-After"))

			a = b.send(t, http.MethodPost, "/v1/batch", operations(good, good))
			require.Equal(t, http.StatusServiceUnavailable, a.StatusCode, "all operations failed with the same code")
			require.Equal(t, want, a.Header.Get("Retry-After"))
		}
	}
	b := serve(t, failing(counter.CodeOutcomeUnknown, 0), api.Options{})
	require.Empty(t, b.send(t, http.MethodDelete, "/v1/counters/a", "").Header.Get("Retry-After"))
}

func TestErrorWithoutACodeIsInternal(t *testing.T) {
	t.Parallel()
	for _, err := range []error{errSecret, &counter.Error{Code: "new_one", Detail: "hunter2"}} {
		b := serve(t, always(counter.Result{Err: err}), api.Options{})
		for _, a := range []*answer{
			b.send(t, http.MethodGet, "/v1/counters/a", ""), b.send(t, http.MethodPost, "/v1/batch", operations(good)),
		} {
			require.Equal(t, http.StatusInternalServerError, a.StatusCode)
			require.Equal(t, problem{Type: "/problems/internal", Title: "Internal error", Status: 500, Code: "internal"}, a.problem(t))
		}
		require.Equal(t, 2, strings.Count(b.log.String(), "request failed"))
	}
}

func TestBatchLogsEachErrorCodeOnce(t *testing.T) {
	t.Parallel()
	b := serve(t, failing(counter.CodeCacheUnavailable, 0), api.Options{})

	b.send(t, http.MethodPost, "/v1/batch", operations(good, good, good), "X-Request-Id: one")

	require.Equal(t, 1, strings.Count(b.log.String(), `"request_id":"one"`))
	require.Contains(t, b.log.String(), `"operations":3`)
}

func TestFailuresAreLoggedAtALimitedRate(t *testing.T) {
	t.Parallel()
	b := serve(t, failing(counter.CodeCacheUnavailable, 0), api.Options{})

	for range 400 {
		b.send(t, http.MethodGet, "/v1/counters/a", "")
	}

	lines := strings.Count(b.log.String(), "request failed")
	require.GreaterOrEqual(t, lines, 100, "the burst")
	require.Less(t, lines, 400)
}

func TestPanicIsAnswered500AndLoggedWithItsStack(t *testing.T) {
	t.Parallel()
	b := serve(t, counters(func(context.Context, []counter.Operation, writepath.Options) []counter.Result {
		panic("secret of the panic")
	}), api.Options{})

	for _, a := range []*answer{
		b.send(t, http.MethodPost, "/v1/counters/a/increment", "", "X-Request-Id: here"),
		b.send(t, http.MethodPost, "/v1/batch", operations(good)),
	} {
		require.Equal(t, http.StatusInternalServerError, a.StatusCode)
		require.Equal(t, problem{Type: "/problems/internal", Title: "Internal error", Status: 500, Code: "internal"}, a.problem(t))
	}
	log := b.log.String()
	require.Equal(t, 2, strings.Count(log, "\n"), log)
	require.Contains(t, log, "secret of the panic")
	require.Contains(t, log, `"request_id":"here"`)
	require.Contains(t, log, "problem_test.go")
}

func TestUnsafeRequestIDsAreReplaced(t *testing.T) {
	t.Parallel()
	b := serve(t, always(counter.Result{}), api.Options{})
	given := map[string]bool{
		"abc-123": true, "~!@#$%^&*()_+{}|:\"<>?": true, strings.Repeat("x", 128): true, strings.Repeat("x", 129): false, "": false,
		"a b": false, "a\tb": false, "é": false, "\x80": false,
	}
	for id, kept := range given {
		for _, target := range []string{"/v1/counters/a", "/nothing", "/healthz"} {
			got := b.send(t, http.MethodGet, target, "", "x-request-id: "+id).Header.Get("X-Request-ID")
			if kept {
				require.Equal(t, id, got)
			} else {
				require.NotEqual(t, id, got)
				require.Regexp(t, `^[A-Z2-7]{26,}$`, got)
			}
		}
	}
	first := b.send(t, http.MethodGet, "/healthz", "").Header.Get("X-Request-ID")
	require.NotEqual(t, first, b.send(t, http.MethodGet, "/healthz", "").Header.Get("X-Request-ID"))
}

func TestMethodNotAllowedListsTheAllowedMethods(t *testing.T) {
	t.Parallel()
	b := serve(t, always(counter.Result{}), api.Options{})
	for target, allow := range map[string]string{
		"/v1/counters/a": "OPTIONS, DELETE, GET, HEAD, PUT", "/v1/counters/a/increment": "OPTIONS, POST", "/v1/batch": "OPTIONS, POST",
		"/v1/counters/a%2Fincrement": "OPTIONS, DELETE, GET, HEAD, PUT", "/healthz": "OPTIONS, GET, HEAD",
	} {
		a := b.send(t, http.MethodPatch, target, "")
		require.Equal(t, http.StatusMethodNotAllowed, a.StatusCode)
		require.Equal(t, allow, a.Header.Get("Allow"))
		require.Equal(t, problem{
			Type: "/problems/method_not_allowed", Title: "Method not allowed", Status: 405, Code: "method_not_allowed",
			Detail: "this path has the methods " + allow,
		}, a.problem(t))

		a = b.send(t, http.MethodOptions, target, "")
		require.Equal(t, http.StatusNoContent, a.StatusCode)
		require.Equal(t, allow, a.Header.Get("Allow"))
	}
}

func TestEveryProblemTypeHasAnExplanation(t *testing.T) {
	t.Parallel()
	b := serve(t, always(counter.Result{}), api.Options{})
	for code := range api.Statuses() {
		a := b.send(t, http.MethodGet, "/problems/"+string(code), "")
		require.Equal(t, http.StatusOK, a.StatusCode)
		require.Contains(t, a.text, string(code))
	}
}

func TestExplainKnowsEveryCode(t *testing.T) {
	t.Parallel()
	for code := range api.Statuses() {
		title, promise := api.Explain(string(code))
		require.NotEmpty(t, title, code)
		require.NotEmpty(t, promise, code)
	}
	title, promise := api.Explain("no_such_code")
	require.Empty(t, title+promise)
}
