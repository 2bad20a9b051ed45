package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// badConditions returns requests whose condition is invalid, or which the counters do not meet.
func badConditions() []badRequest {
	var all []badRequest
	for _, value := range []string{"7", "", `"7`, `7"`, `W/7`, `"1", "2"`, `"1"2"`, `*, "1"`, `"7"` + "\r\nIf-Match: " + `"8"`} {
		all = append(all, badRequest{
			name: "If-Match: " + value, method: "PUT", target: set, body: `{"value":5}`, headers: []string{"If-Match: " + value},
			status: 400, code: "invalid_precondition", detail: "in quotes",
		})
	}
	for _, tag := range []string{`"2"`, `"0"`, `"01"`, `"-1"`, `"abc"`, `""`, `W/"1"`, `"9223372036854775807"`, `"9223372036854775808"`} {
		for _, request := range []string{"PUT " + set, "DELETE " + set, "POST " + increment} {
			method, target, _ := strings.Cut(request, " ")
			body := map[string]string{"PUT": `{"value":5}`}[method]
			all = append(all, badRequest{
				name: method + " If-Match: " + tag, method: method, target: target, body: body, headers: []string{"If-Match: " + tag},
				status: 412, code: "version_mismatch", detail: "the counter has version 1",
			})
		}
	}
	for _, request := range []string{"PUT " + set, "DELETE " + set, "POST " + increment} {
		method, target, _ := strings.Cut(request, " ")
		all = append(all, badRequest{
			name: method + " If-None-Match", method: method, target: target, body: map[string]string{"PUT": `{"value":5}`}[method],
			headers: []string{"If-None-Match: *"}, status: 400, code: "invalid_precondition", detail: "only for GET",
		})
	}
	for _, header := range []string{`If-Match: "1"`, "If-None-Match: *"} {
		all = append(all, badRequest{
			name: "batch " + header, method: "POST", target: batch, body: operations(`{"op":"increment","key":"warm"}`),
			headers: []string{header}, status: 400, code: "invalid_precondition", detail: "many counters",
		})
	}
	refused := func(name, target, body, detail string) {
		all = append(all, badRequest{
			name: name, method: "POST", target: target, body: body, status: 409, code: "out_of_bounds", detail: detail,
		})
	}
	refused("below min", increment, `{"by":-42,"min":0}`, "it is 41")
	refused("above max", increment, `{"by":60,"max":100}`, "it is 41")
	refused("overflow with a bound", "/v1/counters/largest/increment", `{"min":0}`, "9223372036854775807")
	refused("below min, minimal", increment, `{"by":-42,"min":0}`, "it is 41")
	all[len(all)-1].headers = []string{"Prefer: return=minimal"}
	refused("batch of one", batch, operations(`{"op":"increment","key":"warm","by":-42,"min":0}`), "it is 41")
	return all
}

// current is the present state of a counter in a problem.
type current struct {
	Code    string `json:"code"`
	Value   *int64 `json:"value"`
	Version *int64 `json:"version"`
}

func (a *answer) current(t *testing.T) current {
	t.Helper()
	a.problem(t)
	var c current
	require.NoError(t, json.Unmarshal([]byte(a.text), &c))
	return c
}

func TestReadHasTheVersionAsItsEntityTag(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, "a", "7")
	b.put(t, "a", "8")

	a := b.send(t, http.MethodGet, "/v1/counters/a", "")
	require.Equal(t, `"2"`, a.Header.Get("ETag"))

	for _, tags := range []string{`"2"`, `W/"2"`, `"1", "2"`, `*`, `"a,b" , "2"`} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			a := b.send(t, method, "/v1/counters/a", "", "If-None-Match: "+tags)
			require.Equal(t, http.StatusNotModified, a.StatusCode, tags)
			require.Equal(t, `"2"`, a.Header.Get("ETag"))
			require.Empty(t, a.text)
		}
	}
	for _, tags := range []string{`"1"`, `2`, `"22"`, ``, `"2`} {
		a := b.send(t, http.MethodGet, "/v1/counters/a", "", "If-None-Match: "+tags)
		require.Equal(t, http.StatusOK, a.StatusCode, tags)
		require.Equal(t, unsynced("a", 8, 2), a.value(t))
	}
	require.Equal(t, http.StatusNotFound, b.send(t, http.MethodGet, "/v1/counters/none", "", "If-None-Match: *").StatusCode)
}

func TestIfMatchChangesOnlyThatVersion(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, "a", "7")
	b.insertRow(t, "cold", 5, 3)

	a := b.send(t, http.MethodPut, "/v1/counters/a", `{"value":1}`, `If-Match: "2"`)
	require.Equal(t, http.StatusPreconditionFailed, a.StatusCode)
	seven, one := int64(7), int64(1)
	require.Equal(t, current{Code: "version_mismatch", Value: &seven, Version: &one}, a.current(t))

	require.Equal(t, unsynced("a", 9, 2), b.send(t, http.MethodPost, "/v1/counters/a/increment", `{"by":2}`, `If-Match: "1"`).value(t))
	require.Equal(t, unsynced("a", 3, 3), b.send(t, http.MethodPut, "/v1/counters/a", `{"value":3}`, `If-Match: *`).value(t))
	require.Equal(t, http.StatusNoContent, b.send(t, http.MethodDelete, "/v1/counters/a", "", `If-Match: "3"`).StatusCode)
	require.Equal(t, unsynced("cold", 6, 4), b.send(t, http.MethodPost, "/v1/counters/cold/increment", "", `If-Match: "3"`).value(t))

	for _, condition := range []string{"*", `"4"`} {
		for _, target := range []string{"a", "never"} {
			a := b.send(t, http.MethodPut, "/v1/counters/"+target, `{"value":1}`, "If-Match: "+condition)
			require.Equal(t, http.StatusPreconditionFailed, a.StatusCode)
			require.Equal(t, current{Code: "version_mismatch"}, a.current(t), "a counter that does not exist has no state")
		}
	}
}

func TestBoundsInABatchFailAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insertRow(t, "units", 3, 1)
	take := `{"op":"increment","key":"units","by":-2,"min":0}`
	results := b.results(t, operations(take, take, `{"op":"increment","key":"units","by":-1,"min":0}`), "Prefer: return=minimal")
	require.Len(t, results, 3)
	require.JSONEq(t, `{"key":"units","value":1,"version":2,"synced":false}`, results[0])
	require.Contains(t, results[1], `"code":"out_of_bounds","value":1,"version":2`)
	require.JSONEq(t, `{"key":"units","value":0,"version":3,"synced":false}`, results[2])
}

// One problem for all would have the value of one counter only.
func TestBatchThatIsOutOfBoundsHasEachValue(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, "a", "7")
	b.put(t, "b", "8")
	full := func(key string) string { return `{"op":"increment","key":"` + key + `","max":0}` }
	results := b.results(t, operations(full("a"), full("b")))
	require.Len(t, results, 2)
	require.Contains(t, results[0], `"code":"out_of_bounds","value":7,"version":1`)
	require.Contains(t, results[1], `"code":"out_of_bounds","value":8,"version":1`)
}

func TestBoundsOfACounterThatDoesNotExist(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, "deleted", "7")
	b.send(t, http.MethodDelete, "/v1/counters/deleted", "")
	zero := int64(0)
	for _, key := range []string{"never", "deleted"} {
		a := b.send(t, http.MethodPost, "/v1/counters/"+key+"/increment", `{"by":-1,"min":0}`)
		require.Equal(t, http.StatusConflict, a.StatusCode)
		require.Equal(t, current{Code: "out_of_bounds", Value: &zero}, a.current(t), key)
	}
}

// Every client reads the version and tries to set the next value: exactly one wins each version.
func TestExactlyOneClientWinsEachVersion(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, "a", "0")
	const clients, rounds = 8, 10
	var mu sync.Mutex
	wins := make(map[int64]int) // by the version that was replaced
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for range rounds {
				seen := b.send(t, http.MethodGet, "/v1/counters/a", "")
				a := b.send(t, http.MethodPut, "/v1/counters/a", `{"value":1}`, "If-Match: "+seen.Header.Get("ETag"))
				if a.StatusCode != http.StatusOK {
					continue
				}
				mu.Lock()
				wins[*a.value(t).Version-1]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	last := *b.get(t, "a").Version
	require.Greater(t, last, int64(rounds), "with every round at least one client wins")
	require.Len(t, wins, int(last-1))
	for version, n := range wins {
		require.Equal(t, 1, n, "version %d", version)
	}
}

// 200 clients take single units of 1,000 until there are none left.
func TestClientsTakeExactlyWhatABoundAllows(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, "units", "1000")
	const clients = 200
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	t.Cleanup(client.CloseIdleConnections)
	take := func() (status int, left int64, err error) {
		response, err := client.Post("http://"+b.addr+"/v1/counters/units/increment", "application/json", strings.NewReader(`{"by":-1,"min":0}`))
		if err != nil {
			return 0, 0, err
		}
		defer response.Body.Close()
		var c current
		err = json.NewDecoder(response.Body).Decode(&c)
		if err != nil || c.Value == nil {
			return response.StatusCode, -1, err
		}
		return response.StatusCode, *c.Value, nil
	}
	var mu sync.Mutex
	taken, refusals, problems := make(map[int64]int), 0, []string{}
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for {
				status, left, err := take()
				mu.Lock()
				switch {
				case err == nil && status == http.StatusOK:
					taken[left]++
				case err == nil && status == http.StatusConflict && left == 0:
					refusals++
				default:
					problems = append(problems, fmt.Sprint(status, left, err))
				}
				mu.Unlock()
				if status != http.StatusOK {
					return
				}
			}
		})
	}
	all.Wait()
	require.Empty(t, problems)
	require.Len(t, taken, 1000, "each unit went to one client")
	require.Equal(t, clients, refusals)
	require.Equal(t, int64(0), *b.get(t, "units").Value)
}
