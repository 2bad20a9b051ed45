package api_test

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
)

const replayedHeader = "Idempotent-Replayed"

func TestConcurrentRequestsWithOneIdempotencyKeyCountOnce(t *testing.T) {
	t.Parallel()
	const sent = 200
	b := setup(t)
	b.insertRow(t, "cold", 41, 9) // the first request must also hydrate it

	answers := make([]*answer, sent)
	var group sync.WaitGroup
	for i := range answers {
		group.Go(func() {
			answers[i] = b.send(t, http.MethodPost, "/v1/counters/cold/increment", `{"by":5}`, "Idempotency-Key: pay/1 of 1")
		})
	}
	group.Wait()

	fresh := 0
	for _, a := range answers {
		require.Equal(t, http.StatusOK, a.StatusCode, a.text)
		require.Equal(t, unsynced("cold", 46, 10), a.value(t), "all get the same answer")
		if a.Header.Get(replayedHeader) == "" {
			fresh++
		}
	}
	require.Equal(t, 1, fresh)
	require.Equal(t, unsynced("cold", 46, 10), b.get(t, "cold"))
	metrics := b.send(t, http.MethodGet, "/metrics", "").text
	require.Contains(t, metrics, `afterwrite_writes_total{op="increment"} 1`)
	require.Contains(t, metrics, "afterwrite_replayed_total 199")
}

func TestReplayGivesTheFirstAnswerDespiteLaterWrites(t *testing.T) {
	t.Parallel()
	b := setup(t)
	key := "idempotency-key: " + `"quoted, with a space"`
	first := b.send(t, http.MethodPut, "/v1/counters/a", `{"value":7}`, key)
	require.Empty(t, first.Header.Get(replayedHeader))
	b.put(t, "a", "100")

	again := b.send(t, http.MethodPut, "/v1/counters/a", `{ "value" : 7 }`, key)

	require.Equal(t, http.StatusOK, again.StatusCode)
	require.Equal(t, "true", again.Header.Get(replayedHeader))
	require.Equal(t, first.text, again.text)
	require.Equal(t, unsynced("a", 100, 2), b.get(t, "a"), "it was not set again")

	minimal := b.send(t, http.MethodPut, "/v1/counters/a", `{"value":7}`, key, "Prefer: return=minimal")
	require.Equal(t, http.StatusNoContent, minimal.StatusCode)
	require.Equal(t, "true", minimal.Header.Get(replayedHeader))
}

func TestIdempotencyKeyOfAnotherOperationIsRejected(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, "other", "1")
	key := "Idempotency-Key: one"
	require.Equal(t, http.StatusOK, b.send(t, http.MethodPost, "/v1/counters/a/increment", `{"by":2}`, key).StatusCode)

	for _, c := range []struct{ method, target, body string }{
		{http.MethodPost, "/v1/counters/a/increment", `{"by":3}`},
		{http.MethodPost, "/v1/counters/a/increment", ""},
		{http.MethodPut, "/v1/counters/a", `{"value":2}`},
		{http.MethodDelete, "/v1/counters/a", ""},
		{http.MethodPost, "/v1/batch", operations(`{"op":"increment","key":"a","by":3,"id":"one"}`)},
	} {
		a := b.send(t, c.method, c.target, c.body, key)
		require.Equal(t, http.StatusUnprocessableEntity, a.StatusCode, a.text)
		require.Equal(t, "idempotency_key_reused", a.problem(t).Code)
		require.Empty(t, a.Header.Get(replayedHeader))
	}
	require.Equal(t, unsynced("a", 2, 1), b.get(t, "a"))

	require.Equal(t, unsynced("other", 3, 2), b.send(t, http.MethodPost, "/v1/counters/other/increment", `{"by":2}`, key).value(t),
		"the key belongs to one counter")
}

func TestDeleteIsReplayed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, "a", "1")
	for _, c := range []struct{ key, replayed string }{{"a", ""}, {"a", "true"}, {"never", ""}, {"never", "true"}} {
		a := b.send(t, http.MethodDelete, "/v1/counters/"+c.key, "", "Idempotency-Key: one")
		require.Equal(t, http.StatusNoContent, a.StatusCode)
		require.Equal(t, c.replayed, a.Header.Get(replayedHeader))
		b.put(t, c.key, "5") // a second delete would delete this
	}
	require.Equal(t, unsynced("a", 5, 4), b.get(t, "a"))
}

func TestRejectedOperationMayBeRepeatedWithItsKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, "a", "9223372036854775807")
	send := func() *answer {
		return b.send(t, http.MethodPost, "/v1/counters/a/increment", "", "Idempotency-Key: one")
	}
	require.Equal(t, http.StatusConflict, send().StatusCode)
	b.put(t, "a", "1")

	require.Equal(t, unsynced("a", 2, 3), send().value(t))
	require.Equal(t, "true", send().Header.Get(replayedHeader))
}

func TestRepeatedBatchIsReplayed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	key := "Idempotency-Key: " + longestKey[:128]
	ops := []string{
		`{"op":"increment","key":"a"}`, `{"op":"increment","key":"a"}`, `{"op":"set","key":"b","value":7}`,
		`{"op":"delete","key":"c"}`, `{"op":"increment","key":"a","by":5,"id":"own"}`,
	}
	first := b.results(t, operations(ops...), key)

	again := b.send(t, http.MethodPost, "/v1/batch", operations(ops...), key)

	require.Equal(t, "true", again.Header.Get(replayedHeader))
	second := b.results(t, operations(ops...), key)
	for i := range first {
		require.Equal(t, first[i][:len(first[i])-1]+`,"replayed":true}`, second[i])
	}
	require.Equal(t, unsynced("a", 7, 3), b.get(t, "a"))

	// Keys in another order, and two new operations: only the new ones are carried out.
	mixed := b.send(t, http.MethodPost, "/v1/batch",
		operations(ops[2], `{"op":"increment","key":"a","by":5,"id":"own"}`, ops[0], `{"op":"set","key":"d","value":1}`, ops[1],
			`{"op":"increment","key":"a","by":100}`), key)
	require.Empty(t, mixed.Header.Get(replayedHeader))
	require.Equal(t, unsynced("a", 107, 4), b.get(t, "a"))
	require.Equal(t, unsynced("d", 1, 1), b.get(t, "d"))

	// One operation has another amount: only this one is rejected.
	got := b.results(t, operations(`{"op":"increment","key":"a","by":2}`, ops[2]), key)
	require.Contains(t, got[0], `"code":"idempotency_key_reused"`)
	require.Contains(t, got[1], `"replayed":true`)
	require.Equal(t, unsynced("a", 107, 4), b.get(t, "a"))
}

func TestBatchOfSeveralCallsIsReplayed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	list := make([]string, 2000) // four calls to Redis
	for i := range list {
		list[i] = `{"op":"increment","key":"` + strconv.Itoa(i%700) + `"}`
	}
	b.results(t, operations(list...), "Idempotency-Key: many")
	require.Equal(t, "true", b.send(t, http.MethodPost, "/v1/batch", operations(list...), "Idempotency-Key: many").Header.Get(replayedHeader))
	require.Equal(t, unsynced("1", 3, 3), b.get(t, "1"))
}

func TestIDMayHaveAnyPrintableASCII(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"a", " ", "~", longestKey[:128]} {
		id, err := counter.ParseID(good)
		require.NoError(t, err)
		require.Equal(t, good, id)
	}
}

func badIDs() []badRequest {
	const code = "invalid_idempotency_key"
	long := "Idempotency-Key: " + strings.Repeat("i", 129)
	var all []badRequest
	for name, headers := range map[string][]string{
		"empty": {"Idempotency-Key:"}, "129 bytes": {long}, "not ASCII": {"Idempotency-Key: schl\u00fcssel"},
		"a tab": {"Idempotency-Key: a\tb"}, "twice": {"Idempotency-Key: a", "Idempotency-Key: a"},
	} {
		all = append(all,
			badRequest{name: name, method: "POST", target: increment, headers: headers, status: 400, code: code},
			badRequest{name: name, method: "PUT", target: set, body: `{"value":1}`, headers: headers, status: 400, code: code},
			badRequest{name: name, method: "DELETE", target: set, headers: headers, status: 400, code: code},
			badRequest{name: name, method: "POST", target: batch, body: operations(good), headers: headers, status: 400, code: code},
		)
	}
	for id, detail := range map[string]string{
		`""`: "it is empty", `1`: "id must be a string, not a number", `null`: "not null", `"\u0000"`: "byte 0 is not printable",
		`"` + strings.Repeat("i", 129) + `"`: "it has 129 bytes", `"a\u007f"`: "byte 1", `"\u00e9"`: "byte 0",
	} {
		all = append(all, badRequest{
			name: id, method: "POST", target: batch, body: operations(`{"op":"increment","key":"warm","id":` + id + `}`),
			status: 400, code: code, detail: detail,
		})
	}
	return append(all, badRequest{
		name: "id twice", method: "POST", target: batch, body: operations(`{"op":"increment","key":"warm","id":"a","id":"a"}`),
		status: 400, code: "invalid_body", detail: "a field is given twice",
	})
}
