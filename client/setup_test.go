package client_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/client"
	"github.com/afterwrite/afterwrite/internal/local/localapi"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestMain(m *testing.M) { localtest.Main(m, localapi.Leaks()...) }

// patience bounds every wait of a test.
const patience = 20 * time.Second

// setup starts a server with faults, and returns a Client of it.
func setup(t testing.TB, server localapi.Options, options client.Options) *client.Client {
	t.Helper()
	return connect(t, localapi.Start(t, server), options)
}

// connect returns a Client that is closed at the end of the test.
func connect(t testing.TB, url string, options client.Options) *client.Client {
	t.Helper()
	c, err := client.New(url, options)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// value reads a counter that must exist.
func value(t testing.TB, c *client.Client, key string) int64 {
	t.Helper()
	counter, err := c.Get(t.Context(), key)
	require.NoError(t, err)
	require.True(t, counter.Known)
	return counter.Value
}

// fault is what happens to a request.
type fault string

const (
	none      fault = ""
	cutBefore fault = "cut before"   // the connection ends before the api gets the request
	cutAfter  fault = "cut after"    // the api carries the request out, and the connection ends without an answer
	cutAnswer fault = "cut answer"   // the connection ends within the answer
	busy      fault = "backpressure" // 503, nothing applied
	limited   fault = "rate_limited" // 429, nothing applied
	lost      fault = "outcome"      // carried out, and answered with 504 outcome_unknown
	gateway   fault = "gateway"      // carried out, and answered with 502 by a proxy
	forbidden fault = "forbidden"    // 403, nothing applied
)

// faults gives each request a fault, and counts the requests. It is for localapi.Options.Wrap.
type faults struct {
	next       func(n int) fault // the fault of the nth request, from 1; nil: none
	retryAfter string

	mu       sync.Mutex
	requests []*http.Request
}

// faulty returns faults for the first requests.
func faulty(first ...fault) *faults {
	return &faults{next: func(n int) fault {
		if n > len(first) {
			return none
		}
		return first[n-1]
	}}
}

func (f *faults) wrap(api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.requests = append(f.requests, r)
		n := len(f.requests)
		f.mu.Unlock()
		f.serve(f.next(n), api, w, r)
	})
}

func (f *faults) serve(kind fault, api http.Handler, w http.ResponseWriter, r *http.Request) {
	switch kind {
	case none:
		api.ServeHTTP(w, r)
	case cutBefore:
		cut(w, nil)
	case cutAfter:
		carryOut(api, r)
		cut(w, nil)
	case cutAnswer:
		cut(w, carryOut(api, r))
	case busy:
		f.problem(w, http.StatusServiceUnavailable, "backpressure")
	case limited:
		f.problem(w, http.StatusTooManyRequests, "rate_limited")
	case forbidden:
		f.problem(w, http.StatusForbidden, "forbidden")
	case lost:
		carryOut(api, r)
		f.problem(w, http.StatusGatewayTimeout, "outcome_unknown")
	case gateway:
		carryOut(api, r)
		http.Error(w, "<h1>Bad Gateway</h1>", http.StatusBadGateway)
	}
}

func (f *faults) problem(w http.ResponseWriter, status int, code string) {
	if f.retryAfter != "" {
		w.Header().Set("Retry-After", f.retryAfter)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `{"type":"/problems/`+code+`","title":"T","status":`+strconv.Itoa(status)+`,"code":"`+code+`"}`)
}

// carryOut has the api carry a request out, and returns the answer.
func carryOut(api http.Handler, r *http.Request) *httptest.ResponseRecorder {
	recorder := httptest.NewRecorder()
	api.ServeHTTP(recorder, r)
	return recorder
}

// cut closes the connection, after half of an answer unless that is nil.
func cut(w http.ResponseWriter, answer *httptest.ResponseRecorder) {
	connection, writer, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer connection.Close()
	if answer != nil {
		_, _ = writer.WriteString("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
		_, _ = writer.Write(answer.Body.Bytes()[:answer.Body.Len()/2])
		_ = writer.Flush()
	}
}

// count returns the number of requests.
func (f *faults) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.requests)
}

// header returns a header of each request.
func (f *faults) header(name string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var values []string
	for _, r := range f.requests {
		values = append(values, r.Header.Get(name))
	}
	return values
}
