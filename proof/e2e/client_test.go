package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/proof/world"
)

// answer is a response of the API: a counter or a problem.
type answer struct {
	status  int
	Key     string `json:"key"`
	Value   *int64 `json:"value"`
	Version *int64 `json:"version"`
	Synced  bool   `json:"synced"`
	Code    string `json:"code"`
}

// client sends requests to the api over up to 100 connections.
type client struct {
	base string
	http http.Client
}

func (s *system) client() *client {
	transport := &http.Transport{MaxIdleConnsPerHost: 100, MaxConnsPerHost: 100}
	return &client{base: s.api.URL, http: http.Client{Transport: transport, Timeout: 10 * time.Second}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// call sends a request. It returns an error if there is no readable response.
func (c *client) call(method, path, body string) (answer, error) {
	status, raw, err := world.Send(context.Background(), &c.http, method, c.base+path, body, "")
	got := answer{status: status}
	if err == nil && len(raw) > 0 {
		err = json.Unmarshal(raw, &got)
	}
	return got, err
}

func (c *client) increment(key string) (answer, error) {
	return c.call(http.MethodPost, "/v1/counters/"+url.PathEscape(key)+"/increment", "")
}

// must sends a request that must succeed.
func (c *client) must(t *testing.T, method, path, body string) answer {
	t.Helper()
	got, err := c.call(method, path, body)
	require.NoError(t, err)
	require.Less(t, got.status, 300, "%s %s: %+v", method, path, got)
	return got
}

// ledger counts the answers to the increments of a load.
type ledger struct {
	mu            sync.Mutex
	acknowledged  map[string]int64
	indeterminate map[string]int64 // no answer, or outcome_unknown
	refused       map[int]int      // increments that were not applied, by status; 0 if there was no connection
}

func newLedger() *ledger {
	return &ledger{acknowledged: make(map[string]int64), indeterminate: make(map[string]int64), refused: make(map[int]int)}
}

// acked returns the number of acknowledged increments of each key so far.
func (l *ledger) acked() map[string]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.acknowledged)
}

func (l *ledger) note(key string, got answer, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case world.NotSent(err):
		l.refused[0]++
	case err != nil || got.Code == "outcome_unknown":
		l.indeterminate[key]++
	case got.status < 300:
		l.acknowledged[key]++
	default:
		l.refused[got.status]++
	}
}

func (l *ledger) String() string {
	var acknowledged, indeterminate int64
	for _, n := range l.acknowledged {
		acknowledged += n
	}
	for _, n := range l.indeterminate {
		indeterminate += n
	}
	return fmt.Sprintf("%d acknowledged on %d keys, %d indeterminate, refused by status: %v",
		acknowledged, len(l.acknowledged), indeterminate, l.refused)
}

// load increments key0, key1 ... from several connections, until stop is closed or each connection has sent count requests.
func (c *client) load(connections, keys, count int, stop <-chan struct{}) *ledger {
	l := newLedger()
	c.loadInto(l, connections, keys, count, stop)
	return l
}

// loadInto is load with a ledger that can be read meanwhile.
func (c *client) loadInto(l *ledger, connections, keys, count int, stop <-chan struct{}) {
	var group sync.WaitGroup
	for connection := range connections {
		group.Go(func() {
			for i := range count {
				select {
				case <-stop:
					return
				default:
				}
				key := fmt.Sprintf("key%d", (connection+i*connections)%keys)
				got, err := c.increment(key)
				l.note(key, got, err)
			}
		})
	}
	group.Wait()
}

// requireExact requires that Redis and Postgres agree on every key of the ledger, and that each value includes all acknowledged
// increments, and beyond these only indeterminate ones.
func (s *system) requireExact(t *testing.T, c *client, l *ledger) {
	t.Helper()
	rows := s.rows(t)
	keys := make(map[string]bool)
	for key := range l.acknowledged {
		keys[key] = true
	}
	for key := range l.indeterminate {
		keys[key] = true
	}
	for key := range keys {
		low, high := l.acknowledged[key], l.acknowledged[key]+l.indeterminate[key]
		require.GreaterOrEqual(t, rows[key], low, "%s: acknowledged writes are lost", key)
		require.LessOrEqual(t, rows[key], high, "%s: writes are counted twice", key)
		if low == 0 && rows[key] == 0 {
			continue // the counter does not exist
		}
		got := c.must(t, http.MethodGet, "/v1/counters/"+key, "")
		require.Equal(t, rows[key], *got.Value, "%s: redis and postgres differ", key)
		require.Equal(t, rows[key], *got.Version, "%s: only increments by one", key)
		require.True(t, got.Synced, "%s", key)
	}
}
