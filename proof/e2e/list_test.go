package e2e_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/proof/world"
)

// listed is a page of a list.
type listed struct {
	Counters []struct {
		Key   string `json:"key"`
		Value *int64 `json:"value"`
	} `json:"counters"`
	Next *string `json:"next_cursor"`
}

// page reads a page of a list. after is the cursor; "" for the first page.
func (c *client) page(t *testing.T, prefix, after string, limit int, prefer string) (status int, page listed) {
	t.Helper()
	query := url.Values{"prefix": {prefix}, "limit": {strconv.Itoa(limit)}}
	if after != "" {
		query.Set("cursor", after)
	}
	status, body, err := world.Send(context.Background(), &c.http, http.MethodGet, c.base+"/v1/counters?"+query.Encode(), "", prefer)
	require.NoError(t, err)
	if status == http.StatusServiceUnavailable { // on a busy machine Postgres may be slow
		return status, page
	}
	require.Less(t, status, 300, "%s", body)
	require.NoError(t, json.Unmarshal(body, &page))
	return status, page
}

// all reads a list page by page, and requires that its keys are in order, so that none is on two pages.
func (c *client) all(t *testing.T, prefix string, limit int) map[string]int64 {
	t.Helper()
	values := make(map[string]int64)
	last, after, refused := "", "", 0
	for {
		status, page := c.page(t, prefix, after, limit, "")
		if status == http.StatusServiceUnavailable {
			refused++
			require.Less(t, refused, 100, "Postgres does not answer")
			time.Sleep(100 * time.Millisecond) // as a client does after a 503
			continue
		}
		for _, counter := range page.Counters {
			require.Greater(t, counter.Key, last)
			last = counter.Key
			values[last] = *counter.Value
		}
		if page.Next == nil {
			return values
		}
		after = *page.Next
	}
}

// New counters and increments of old ones arrive all the time. Each list has everything that was acknowledged before its request.
func TestListWithAWaitNeverShowsLessThanWasAcknowledged(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := s.client()
	defer c.close()
	stop, done := make(chan struct{}), make(chan struct{})
	l := newLedger()
	go func() { defer close(done); c.loadInto(l, 4, 950, forever, stop) }()
	lists, complete, counters := 0, 0, 0
	for complete < 5 || counters < 950 {
		before := l.acked()
		status, page := c.page(t, "key", "", 1000, "wait=5")
		lists++
		if status != http.StatusOK {
			require.Less(t, lists, 50, "hardly any flush finishes in time")
			time.Sleep(100 * time.Millisecond)
			continue // it says that it may lack some, or that Postgres did not answer
		}
		complete++
		require.Nil(t, page.Next)
		values := make(map[string]int64)
		for _, counter := range page.Counters {
			values[counter.Key] = *counter.Value
		}
		counters = len(values)
		for key, acknowledged := range before {
			if values[key] < acknowledged {
				t.Errorf("list %d has %d for %s, although %d increments were acknowledged before", lists, values[key], key, acknowledged)
			}
		}
	}
	close(stop)
	<-done
	t.Logf("%d of %d lists were complete; %s", complete, lists, l)
	s.eventuallyClean(t, 4*sweepInterval)
	s.requireExact(t, c, l)
}
