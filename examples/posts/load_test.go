package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

const (
	clients    = 6
	pause      = 20 * time.Millisecond // between two requests of a client, at least: the processes need some of the processor
	numPosts   = 100                   // of schema.sql
	maxFailure = 10                    // failures to keep
)

// counts are by post, or by post and day.
type counts map[string]int64

// load likes and views posts all the time, and counts what the application acknowledges.
type load struct {
	app    string
	ends   []func()
	paused sync.RWMutex // read-locked during each request

	mu           sync.Mutex
	likes, views counts
	requests     int
	slowest      time.Duration
	failures     []string
}

// startLoad starts the clients. They end with the test.
func startLoad(t *testing.T, app string) *load {
	t.Helper()
	l := &load{app: app, likes: counts{}, views: counts{}}
	transport := &http.Transport{MaxIdleConnsPerHost: clients}
	t.Cleanup(transport.CloseIdleConnections)
	for client := range clients {
		l.ends = append(l.ends, localtest.Run(t, func(ctx context.Context) error {
			pace := time.NewTicker(pause)
			defer pace.Stop()
			for n := client; ctx.Err() == nil; n++ {
				l.one(ctx, &http.Client{Transport: transport}, n)
				<-pace.C
			}
			return nil
		}))
	}
	return l
}

// stop ends the clients after their requests in progress. No request may have failed.
func (l *load) stop(t *testing.T) {
	t.Helper()
	for _, end := range l.ends {
		end()
	}
	require.Empty(t, l.failures)
}

// one sends the nth request of a client. Every third goes to the same post, so that writers meet.
func (l *load) one(ctx context.Context, c *http.Client, n int) {
	l.paused.RLock()
	defer l.paused.RUnlock()
	if ctx.Err() != nil {
		return
	}
	ctx = context.WithoutCancel(ctx) // so that each request that was sent gets its answer
	id := 1
	if n%3 > 0 {
		id += n % numPosts
	}
	path, method := fmt.Sprintf("/posts/%d", id), http.MethodGet
	like := n/3%2 == 0
	if like {
		path, method = path+"/like", http.MethodPost
	}
	begun := time.Now()
	answer, err := send(ctx, c, method, l.app+path)

	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests++
	l.slowest = max(l.slowest, time.Since(begun))
	switch {
	case err != nil && len(l.failures) < maxFailure:
		l.failures = append(l.failures, fmt.Sprintf("%s %s: %v", method, path, err))
	case like:
		l.likes[fmt.Sprintf("post:%d:likes", id)]++
	default:
		l.views[fmt.Sprintf("views:%d:%s", id, answer.Day)]++
	}
}

type viewed struct {
	Day string `json:"day"`
}

func send(ctx context.Context, c *http.Client, method, url string) (viewed, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, http.NoBody)
	if err != nil {
		return viewed{}, err
	}
	response, err := c.Do(request)
	if err != nil {
		return viewed{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return viewed{}, err
	}
	if response.StatusCode != http.StatusOK {
		return viewed{}, fmt.Errorf("%s: %s", response.Status, body)
	}
	var answer viewed
	return answer, json.Unmarshal(body, &answer)
}

// progress waits until the clients have got many more answers.
func (l *load) progress(t *testing.T) {
	t.Helper()
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.requests
	}
	goal := count() + 20*clients
	localtest.Eventually(t, time.Minute, func() (bool, string) {
		n := count()
		return n >= goal, fmt.Sprintf("%d of %d answers", n, goal)
	})
}

// quiet calls check while no request is in progress. No request may have failed so far.
func (l *load) quiet(t *testing.T, check func()) {
	t.Helper()
	l.paused.Lock()
	defer l.paused.Unlock()
	require.Empty(t, l.failures)
	check()
}
