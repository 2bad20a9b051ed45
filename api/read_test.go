package api_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/counter"
)

const readPath = "/v1/read"

// keysBody returns the body of a read of JSON values.
func keysBody(values ...string) string { return `{"keys":[` + strings.Join(values, ",") + `]}` }

// counters returns the JSON of each element of an answer's counters.
func (a *answer) counters(t *testing.T) []string {
	t.Helper()
	require.Equal(t, http.StatusOK, a.StatusCode, a.text)
	require.Equal(t, "application/json", a.Header.Get("Content-Type"))
	var answer struct {
		Counters []json.RawMessage `json:"counters"`
	}
	require.NoError(t, json.Unmarshal([]byte(a.text), &answer))
	texts := make([]string, len(answer.Counters))
	for i, c := range answer.Counters {
		texts[i] = string(c)
	}
	return texts
}

func TestReadAnswersInOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, "a", "1")
	b.put(t, "gone", "1")
	require.Equal(t, http.StatusNoContent, b.send(t, http.MethodDelete, "/v1/counters/gone", "").StatusCode)
	b.insertRow(t, "cold/é", -7, 3)

	got := b.send(t, http.MethodPost, readPath, keysBody(`"cold/é"`, `"gone"`, `"a"`, `"never"`, `"a\n"`, `5`, `["a"]`, `"a"`)).counters(t)

	require.Len(t, got, 8)
	require.JSONEq(t, `{"key":"cold/é","value":-7,"version":3,"synced":true}`, got[0])
	require.JSONEq(t, `{"key":"a","value":1,"version":1,"synced":false}`, got[2])
	require.Equal(t, got[2], got[7])
	for i, want := range map[int][2]string{
		1: {`"gone"`, "not_found"}, 3: {`"never"`, "not_found"},
		4: {`null`, "invalid_key"}, 5: {`null`, "invalid_key"}, 6: {`null`, "invalid_key"},
	} {
		require.True(t, strings.HasPrefix(got[i], `{"key":`+want[0]+`,"error":{"type":"/problems/`+want[1]+`"`), got[i])
	}
	for i, key := range map[int]string{0: "cold%2F%C3%A9", 2: "a"} {
		require.Equal(t, b.send(t, http.MethodGet, "/v1/counters/"+key, "").text, got[i], "the same as the GET of a counter")
	}
}

func TestReadOfManyCounters(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := b.postgres.ExecContext(t.Context(), `INSERT INTO counters (key, value, version, updated_at)
		SELECT 'cold' || n, 1 * n, 1, now() FROM generate_series(0, 4999) AS n`)
	require.NoError(t, err)
	keys, list := make([]string, api.MaxOperations), make([]string, 0, api.MaxOperations/2)
	for i := range keys {
		keys[i] = `"cold` + decimal(int64(i/2)) + `"`
		if i%2 == 1 {
			keys[i] = `"warm` + decimal(int64(i)) + `"`
			list = append(list, `{"op":"set","value":`+decimal(int64(i))+`,"key":`+keys[i]+`}`)
		}
	}
	b.results(t, operations(list...))

	got := b.send(t, http.MethodPost, readPath, keysBody(keys...)).counters(t)

	require.Len(t, got, len(keys))
	for i, text := range got {
		var v value
		require.NoError(t, json.Unmarshal([]byte(text), &v))
		require.NotNil(t, v.Value, text)
		require.Equal(t, keys[i], `"`+v.Key+`"`)
		require.Equal(t, int64(i/2+i%2*(i-i/2)), *v.Value)
	}
}

func TestReadWithoutAnyCounterIsAnswered200(t *testing.T) {
	t.Parallel()
	b := setup(t)
	got := b.send(t, http.MethodPost, readPath, keysBody(`"a"`, `"b"`)).counters(t)
	require.Len(t, got, 2)
	for _, text := range got {
		require.Contains(t, text, `"status":404`)
	}
}

func TestReadFailsAsAWholeIfAllKeysFailWithTheSameCode(t *testing.T) {
	t.Parallel()
	for code, status := range api.Statuses() {
		if status < 500 {
			continue
		}
		a := serve(t, failing(code, 2*time.Second), api.Options{}).send(t, http.MethodPost, readPath, keysBody(`"a"`, `"b"`))
		require.Equal(t, status, a.StatusCode)
		require.Equal(t, string(code), a.problem(t).Code)
		if status == http.StatusServiceUnavailable {
			require.Equal(t, "2", a.Header.Get("Retry-After"))
		}
	}
	b := serve(t, failing(counter.CodeDatabaseUnavailable, 0), api.Options{})
	got := b.send(t, http.MethodPost, readPath, keysBody(`"a"`, `""`)).counters(t)
	require.Contains(t, got[0], "database_unavailable")
	require.Contains(t, got[1], "invalid_key")
}

// badReads returns reads that are rejected as a whole.
func badReads() []badRequest {
	all := []badRequest{
		{name: "empty body", body: "", detail: "the body is empty"},
		{name: "empty object", body: `{}`, detail: "empty or missing"},
		{name: "no keys", body: keysBody(), detail: "empty or missing"},
		{name: "keys null", body: `{"keys":null}`, detail: "keys must be a list, not null"},
		{name: "one key", body: `{"keys":"warm"}`, detail: "not a string"},
		{name: "bare list", body: `["warm"]`, detail: "must be an object, not a list"},
		{name: "keys twice", body: `{"keys":["warm"],"keys":["warm"]}`, detail: "twice"},
		{name: "cut off", body: `{"keys":["warm"`, detail: "ends too early"},
		{name: "trailing data", body: keysBody(`"warm"`) + "1", detail: "data after"},
		{name: "invalid UTF-8", body: "{\"keys\":[\"\xff\"]}"},
		{name: "deep", body: `{"keys":` + strings.Repeat("[", 20_000)},
		{name: "unknown field", body: `{"keys":["warm"],"wait":5}`, code: "unknown_field", detail: `"wait"`},
		{name: "too many", body: keysBody(strings.Repeat(`"warm",`, api.MaxOperations) + `"warm"`), code: "too_many_operations", detail: "10000 keys"},
		{name: "only invalid keys", body: keysBody(`""`, `1`, `null`), code: "invalid_key"},
		{name: "text", body: keysBody(`"warm"`), headers: []string{"Content-Type: text/plain"}, status: 415, code: "unsupported_media_type"},
		{
			name: "too large", body: chunked(keysBody(`"` + strings.Repeat("k", 8<<20) + `"`)), headers: []string{isChunked},
			status: 413, code: "body_too_large",
		},
	}
	for i := range all {
		c := &all[i]
		c.name, c.method, c.target = "read: "+c.name, http.MethodPost, readPath
		if c.status == 0 {
			c.status = 400
		}
		if c.code == "" {
			c.code = "invalid_body"
		}
	}
	return append(all, badRequest{name: "GET of read", method: "GET", target: readPath, status: 405, code: "method_not_allowed", detail: "POST"})
}
