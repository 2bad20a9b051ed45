package api_test

import (
	"math"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/counter"
)

func TestIncrementAnswersWithTheNewValue(t *testing.T) {
	t.Parallel()
	b := setup(t)
	steps := []struct {
		name, body string
		headers    []string
		want       value
	}{
		{name: "by", body: `{"by": 5}`, want: unsynced("a", 5, 1)},
		{name: "negative", body: `{"by": -7}`, want: unsynced("a", -2, 2)},
		{name: "no body", want: unsynced("a", -1, 3)},
		{name: "no by", body: `{}`, want: unsynced("a", 0, 4)},
		{name: "chunked", body: chunked(`{"by":10}`), headers: []string{"Transfer-Encoding: chunked"}, want: unsynced("a", 10, 5)},
		{
			name: "chunked and empty", body: "0\r\n\r\n", headers: []string{"Transfer-Encoding: chunked", "Content-Type: text/plain"},
			want: unsynced("a", 11, 6),
		},
		{
			name: "parameters", body: `{"by":1}`, headers: []string{`Content-Type: Application/JSON; charset="UTF-8"; v=1`},
			want: unsynced("a", 12, 7),
		},
		{name: "identity", body: `{"by":1}`, headers: []string{"Content-Encoding: identity"}, want: unsynced("a", 13, 8)},
		{name: "white space", body: " {\n\"by\"\t: 1 }\r\n", want: unsynced("a", 14, 9)},
		{name: "escaped name", body: `{"\u0062y":1}`, want: unsynced("a", 15, 10)},
		{name: "zero", body: `{"by":-0}`, want: unsynced("a", 15, 11)},
		{name: "largest", body: `{"by":9223372036854775792}`, want: unsynced("a", math.MaxInt64, 12)},
	}
	for _, s := range steps {
		a := b.send(t, http.MethodPost, "/v1/counters/a/increment?unknown=1", s.body, s.headers...)

		require.Equal(t, http.StatusOK, a.StatusCode, "%s: %s", s.name, a.text)
		require.Equal(t, s.want, a.value(t), s.name)
		require.Equal(t, "no-store", a.Header.Get("Cache-Control"))
		require.Empty(t, a.Header.Get("Server"))
	}
	require.Equal(t, unsynced("a", math.MaxInt64, 12), b.get(t, "a"))
}

func TestSetAnswersWithTheNewValue(t *testing.T) {
	t.Parallel()
	b := setup(t)

	for i, v := range []int64{42, -1, 0, math.MaxInt64, math.MinInt64} {
		a := b.send(t, http.MethodPut, "/v1/counters/a", `{"value":`+decimal(v)+`}`)

		require.Equal(t, http.StatusOK, a.StatusCode, a.text)
		require.Equal(t, unsynced("a", v, int64(i+1)), a.value(t))
		require.Equal(t, unsynced("a", v, int64(i+1)), b.get(t, "a"))
	}
}

func TestDeleteOfAMissingCounterIsAnswered204(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, "a", "42")

	for _, key := range []string{"a", "a", "never"} {
		a := b.send(t, http.MethodDelete, "/v1/counters/"+key, "")
		require.Equal(t, http.StatusNoContent, a.StatusCode)
		require.Empty(t, a.text)
		require.Empty(t, a.Header.Get("Preference-Applied"))
		require.Equal(t, "not_found", b.send(t, http.MethodGet, "/v1/counters/"+key, "").problem(t).Code)
	}

	b.put(t, "a", "1")
	require.Equal(t, unsynced("a", 1, 3), b.get(t, "a"), "the version is not reset")
}

func TestGetOfAMissingCounterIsNotFound(t *testing.T) {
	t.Parallel()
	a := setup(t).send(t, http.MethodGet, "/v1/counters/never", "")

	require.Equal(t, http.StatusNotFound, a.StatusCode)
	require.Equal(t, "not_found", a.problem(t).Code)
}

func TestGetReadsAColdCounterFromPostgres(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insertRow(t, "cold", 7, 3)

	got := b.get(t, "cold")

	require.Equal(t, int64(7), *got.Value)
	require.Equal(t, int64(3), *got.Version)
	require.True(t, got.Synced)
	require.Equal(t, unsynced("cold", 8, 4), b.send(t, http.MethodPost, "/v1/counters/cold/increment", "").value(t))
}

func TestHeadIsGetWithoutABody(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, "a", "42")

	for target, status := range map[string]int{
		"/v1/counters/a": http.StatusOK, "/v1/counters/never": http.StatusNotFound, "/v1/counters/%00": http.StatusBadRequest,
		"/healthz": http.StatusOK, "/readyz": http.StatusOK, "/metrics": http.StatusOK, "/v1/openapi.yaml": http.StatusOK,
		"/nothing": http.StatusNotFound,
	} {
		head, get := b.send(t, http.MethodHead, target, ""), b.send(t, http.MethodGet, target, "")

		require.Equal(t, status, head.StatusCode, target)
		require.Equal(t, status, get.StatusCode, target)
		require.Empty(t, head.text, target)
		require.NotEmpty(t, get.text, target)
		require.Equal(t, get.Header.Get("Content-Type"), head.Header.Get("Content-Type"), target)
		if target != "/metrics" { // its body differs between requests
			require.Equal(t, get.ContentLength, head.ContentLength, target)
		}
	}
}

func TestWriteWithUnknownValueIsAnswered202(t *testing.T) {
	t.Parallel()
	b := serve(t, always(counter.Result{Counter: counter.Counter{Exists: true, Value: 5, Version: 1}}), api.Options{})

	for method, target := range map[string]string{http.MethodPost: "/v1/counters/a/increment", http.MethodPut: "/v1/counters/a"} {
		a := b.send(t, method, target, map[string]string{http.MethodPut: `{"value":1}`}[method])

		require.Equal(t, http.StatusAccepted, a.StatusCode)
		require.JSONEq(t, `{"key":"a","value":null,"version":null,"synced":false}`, a.text)
	}
}
