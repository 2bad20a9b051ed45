package api_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// operations returns the body of a batch.
func operations(list ...string) string {
	return `{"operations":[` + strings.Join(list, ",") + `]}`
}

// results sends a batch and returns the JSON of each result.
func (b *bundle) results(t *testing.T, body string, headers ...string) []string {
	t.Helper()
	a := b.send(t, http.MethodPost, "/v1/batch", body, headers...)
	require.Equal(t, http.StatusOK, a.StatusCode, a.text)
	require.Equal(t, "application/json", a.Header.Get("Content-Type"))
	var answer struct {
		Results []json.RawMessage `json:"results"`
	}
	require.NoError(t, json.Unmarshal([]byte(a.text), &answer))
	texts := make([]string, len(answer.Results))
	for i, r := range answer.Results {
		texts[i] = string(r)
	}
	return texts
}

func TestBatchAnswersInOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)

	got := b.results(t, operations(
		`{"op":"increment","key":"a","by":1}`, `{"op":"set","key":"b","value":7}`, `{"op":"delete","key":"c"}`,
		`{"op":"increment","key":"b"}`, `{"op":"delete","key":"b"}`, `{"value":-9223372036854775808,"key":"ü/\"","op":"set"}`,
	))

	require.Equal(t, []string{
		`{"key":"a","value":1,"version":1,"synced":false}`,
		`{"key":"b","value":7,"version":1,"synced":false}`,
		`{"key":"c","deleted":true,"synced":` + syncedOf(t, got[2]) + `}`,
		`{"key":"b","value":8,"version":2,"synced":false}`,
		`{"key":"b","deleted":true,"version":3,"synced":false}`,
		`{"key":"ü/\"","value":-9223372036854775808,"version":1,"synced":false}`,
	}, got)
}

// syncedOf returns the synced field of a result. For a counter that never existed the write path decides it, not the api.
func syncedOf(t *testing.T, result string) string {
	t.Helper()
	var r struct {
		Synced bool `json:"synced"`
	}
	require.NoError(t, json.Unmarshal([]byte(result), &r))
	text, err := json.Marshal(r.Synced)
	require.NoError(t, err)
	return string(text)
}

func TestBatchKeepsTheOrderOnOneKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	list := make([]string, 0, api.MaxOperations)
	for i := range api.MaxOperations / 2 {
		list = append(list, `{"op":"set","key":"a","value":`+decimal(int64(i)*10)+`}`, `{"op":"increment","key":"a","by":3}`)
	}

	got := b.results(t, operations(list...))

	require.Len(t, got, api.MaxOperations)
	for i, text := range got {
		want := unsynced("a", int64(i/2*10+i%2*3), int64(i+1))
		var v value
		require.NoError(t, json.Unmarshal([]byte(text), &v))
		require.Equal(t, want, v, i)
	}
}

func TestBatchAppliesTheValidOperationsOnly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, "full", "9223372036854775807")

	got := b.results(t, operations(
		`{"op":"set","key":"a","value":1}`,
		`{"op":"set","key":"a\n","value":1}`,
		`{"op":"set","key":"a","value":1.5}`,
		`{"op":"multiply","key":"a"}`,
		`{"op":"increment","key":"full"}`,
		`{"op":"increment","key":"a"}`,
	))

	problems := map[int][3]string{
		1: {`null`, "invalid_key", "400"}, 2: {`"a"`, "invalid_body", "400"}, 3: {`"a"`, "invalid_body", "400"}, 4: {`"full"`, "overflow", "409"},
	}
	for i, want := range problems {
		require.True(t, strings.HasPrefix(got[i], `{"key":`+want[0]+`,"error":{"type":"/problems/`+want[1]+`","title":"`), got[i])
		require.Contains(t, got[i], `","status":`+want[2]+`,"detail":"`)
		require.True(t, strings.HasSuffix(got[i], `","code":"`+want[1]+`"}}`), got[i])
	}
	require.JSONEq(t, `{"key":"a","value":1,"version":1,"synced":false}`, got[0])
	require.JSONEq(t, `{"key":"a","value":2,"version":2,"synced":false}`, got[5])
	require.Equal(t, unsynced("a", 2, 2), b.get(t, "a"))
}

func TestBatchWithDifferentErrorsIsAnswered200(t *testing.T) {
	t.Parallel()
	b := setup(t)

	got := b.results(t, operations(`{"op":"delete","key":""}`, `{"op":"set","key":"a"}`), "Prefer: return=minimal")

	require.Contains(t, got[0], `"code":"invalid_key"`)
	require.Contains(t, got[1], `"code":"invalid_body"`)
}

func TestMinimalBatchIsAnswered204OnlyIfAllSucceeded(t *testing.T) {
	t.Parallel()
	b := setup(t)

	a := b.send(t, http.MethodPost, "/v1/batch", operations(`{"op":"set","key":"a","value":1}`, `{"op":"delete","key":"b"}`),
		"Prefer: return=minimal")
	require.Equal(t, http.StatusNoContent, a.StatusCode)
	require.Equal(t, "return=minimal", a.Header.Get("Preference-Applied"))

	a = b.send(t, http.MethodPost, "/v1/batch", operations(`{"op":"set","key":"a","value":2}`, `{"op":"set","key":"b"}`),
		"Prefer: return=minimal")
	require.Equal(t, http.StatusOK, a.StatusCode)
	require.Empty(t, a.Header.Get("Preference-Applied"))
	require.Contains(t, a.text, `"code":"invalid_body"`)
	require.Equal(t, int64(2), *b.get(t, "a").Value)
}

func TestBatchShowsUnknownValuesAsNull(t *testing.T) {
	t.Parallel()
	b := serve(t, always(counter.Result{Counter: counter.Counter{Value: 5, Version: 5}}), api.Options{})

	got := b.results(t, operations(`{"op":"increment","key":"a"}`, `{"op":"delete","key":"b"}`))

	require.Equal(t, []string{
		`{"key":"a","value":null,"version":null,"synced":false}`, `{"key":"b","deleted":true,"synced":false}`,
	}, got)
}

// good is a valid operation.
const good = `{"op":"set","key":"warm","value":5}`

// badBatches returns batches that are rejected as a whole, although most have a valid operation.
func badBatches() []badRequest {
	all := []badRequest{
		{name: "empty body", body: ""},
		{name: "empty object", body: `{}`, detail: "empty or missing"},
		{name: "no operations", body: operations(), detail: "empty or missing"},
		{name: "operations null", body: `{"operations":null}`, detail: "operations must be a list, not null"},
		{name: "operations an object", body: `{"operations":` + good + `}`, detail: "not an object"},
		{name: "bare list", body: `[` + good + `]`, detail: "must be an object, not a list"},
		{name: "operations twice", body: `{"operations":[` + good + `],"operations":[` + good + `]}`, detail: "twice"},
		{name: "operation is null", body: operations(good, `null`), detail: "operations[1] must be an object, not null"},
		{name: "operation is a number", body: operations(good, `5`), detail: "operations[1] must be an object, not a number"},
		{name: "operation is a list", body: operations(good, `[]`), detail: "operations[1] must be an object, not a list"},
		{name: "field twice", body: operations(good, `{"op":"set","key":"a","key":"b","value":1}`), detail: "twice"},
		{name: "cut off", body: `{"operations":[` + good},
		{name: "cut off after the list", body: `{"operations":[` + good + `]`},
		{name: "trailing comma", body: `{"operations":[` + good + `,]}`},
		{name: "trailing data", body: operations(good) + `1`, detail: "data after"},
		{name: "invalid UTF-8 in a key", body: operations(good, "{\"op\":\"delete\",\"key\":\"\xff\"}")},
		{name: "lone surrogate in a key", body: operations(good, `{"op":"delete","key":"\ud83d"}`)},
		{name: "syntax in an amount", body: operations(good, `{"op":"set","key":"a","value":01}`)},
	}
	for i := range all {
		all[i].method, all[i].target, all[i].status, all[i].code = "POST", batch, 400, "invalid_body"
	}
	return append(all,
		badRequest{
			name: "unknown field", method: "POST", target: batch, body: `{"operations":[` + good + `],"atomic":true}`,
			status: 400, code: "unknown_field", detail: `"atomic"`,
		},
		badRequest{
			name: "unknown field of an operation", method: "POST", target: batch, body: operations(good, `{"op":"delete","key":"a","if":1}`),
			status: 400, code: "unknown_field", detail: `operations[1] has an unknown field "if"`,
		},
		badRequest{
			name: "too many operations", method: "POST", target: batch, status: 400, code: "too_many_operations", detail: "10000",
			body: `{"operations":[` + strings.Repeat(good+",", api.MaxOperations) + good + `]}`,
		},
		badRequest{
			name: "too many operations, and then nonsense", method: "POST", target: batch, status: 400, code: "too_many_operations",
			body: `{"operations":[` + strings.Repeat(good+",", api.MaxOperations) + `nonsense`,
		})
}

// badSingleBatches returns batches in which all operations fail with the same code, so the request does.
func badSingleBatches() []badRequest {
	var all []badRequest
	for operation, code := range map[string]string{
		`{}`:                                                       "invalid_key",
		`{"op":"set","value":5}`:                                   "invalid_key",
		`{"op":"set","key":"","value":5}`:                          "invalid_key",
		`{"op":"set","key":5,"value":5}`:                           "invalid_key",
		`{"op":"set","key":null,"value":5}`:                        "invalid_key",
		`{"op":"set","key":"a\u0000","value":5}`:                   "invalid_key",
		`{"op":"set","key":"` + longestKey + `k","value":5}`:       "invalid_key",
		`{"key":"warm","value":5}`:                                 "invalid_body",
		`{"op":null,"key":"warm","value":5}`:                       "invalid_body",
		`{"op":"Set","key":"warm","value":5}`:                      "invalid_body",
		`{"op":"get","key":"warm"}`:                                "invalid_body",
		`{"op":"set","key":"warm"}`:                                "invalid_body",
		`{"op":"set","key":"warm","value":null}`:                   "invalid_body",
		`{"op":"set","key":"warm","value":5.0}`:                    "invalid_body",
		`{"op":"set","key":"warm","value":"5"}`:                    "invalid_body",
		`{"op":"set","key":"warm","by":5}`:                         "invalid_body",
		`{"op":"set","key":"warm","value":5,"by":5}`:               "invalid_body",
		`{"op":"increment","key":"warm","by":null}`:                "invalid_body",
		`{"op":"increment","key":"warm","by":9223372036854775808}`: "invalid_body",
		`{"op":"increment","key":"warm","value":5}`:                "invalid_body",
		`{"op":"delete","key":"warm","by":5}`:                      "invalid_body",
		`{"op":"delete","key":"warm","value":5}`:                   "invalid_body",
	} {
		all = append(all, badRequest{
			name: operation, method: "POST", target: batch, body: operations(operation, operation), status: 400, code: code,
		})
	}
	return all
}
