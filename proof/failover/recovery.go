package main

import (
	"context"
	"fmt"
	"html"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/proof/world"
)

const (
	probeEvery  = 50 * time.Millisecond
	probeBound  = 500 * time.Millisecond
	flushEvery  = 100 * time.Millisecond
	statusEvery = 200 * time.Millisecond
	// statusBound is longer than any answer of the dashboard should take on a busy machine.
	statusBound = 2 * time.Second
	// settled is how long the dashboard must have shown nothing wrong.
	settled = 3 * time.Second
)

// recovery observes when the servers are back, and when afterwrite works again. It measures after the fault only.
type recovery struct {
	stage    *world.Stage
	topology world.Topology
	ledger   *ledger
	overview string // the URL of the dashboard's overview

	mu        sync.Mutex
	fault     time.Time
	back      []time.Time   // by shard: after the last failed write of this program to the shard's master
	flushes   [][]flush     // by shard, in the order in which they were seen
	wrong     time.Time     // the last time when the dashboard showed something wrong
	right     time.Time     // the first time after that
	sentences []string      // what it showed meanwhile
	slowest   time.Duration // its slowest answer
}

// flush is a committed transaction.
type flush struct{ began, seen time.Time }

// watch observes until ctx is done.
func (r *recovery) watch(ctx context.Context) {
	r.fault = r.ledger.fault
	r.back, r.flushes = make([]time.Time, shards), make([][]flush, shards)
	for i := range r.back {
		r.back[i] = r.fault
	}
	var group sync.WaitGroup
	for shard := range shards {
		group.Go(func() { r.probe(ctx, shard) })
	}
	group.Go(func() { every(ctx, flushEvery, r.readFlushes) })
	group.Go(func() { every(ctx, statusEvery, r.readStatus) })
	group.Wait()
}

func every(ctx context.Context, pause time.Duration, do func(context.Context)) {
	for world.Sleep(ctx, pause) == nil {
		do(ctx)
	}
}

// probe writes a key of the shard's slot, on the node that the other servers name as its master.
func (r *recovery) probe(ctx context.Context, shard int) {
	key := fmt.Sprintf("probe:{aw:%s}", counter.Shard(shard))
	every(ctx, probeEvery, func(ctx context.Context) {
		bounded, cancel := context.WithTimeout(ctx, probeBound)
		defer cancel()
		node, err := r.topology.MasterOf(bounded, key)
		if err == nil {
			err = node.Client.Set(bounded, key, 1, time.Minute).Err()
		}
		if err != nil && ctx.Err() == nil {
			r.mu.Lock()
			r.back[shard] = time.Now()
			r.mu.Unlock()
		}
	})
}

// readFlushes notes the newest flush of each shard.
func (r *recovery) readFlushes(ctx context.Context) {
	found, err := r.stage.DB.QueryContext(ctx, "SELECT key, updated_at FROM counters WHERE updated_at > $1", r.fault)
	if err != nil {
		return
	}
	defer found.Close()
	newest := make([]time.Time, shards)
	for found.Next() {
		var key string
		var at time.Time
		if found.Scan(&key, &at) != nil {
			return
		}
		shard := counter.Key(key).Shard(shards)
		if at.After(newest[shard]) {
			newest[shard] = at
		}
	}
	if found.Err() != nil {
		return
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for shard, at := range newest {
		seen := r.flushes[shard]
		if !at.IsZero() && (len(seen) == 0 || seen[len(seen)-1].began.Before(at)) {
			r.flushes[shard] = append(seen, flush{began: at, seen: now})
		}
	}
}

// stateOf finds the level and the sentence of the overview (dashboard/pages/overview.html).
var stateOf = regexp.MustCompile(`data-level="(\w+)" data-news="([^"]*)"`)

// requestsFail begins the sentence about requests of the last seconds. It is right for as long after the fault.
const requestsFail = "Requests fail"

// readStatus notes what the dashboard shows. Only the level bad is wrong: warn is for what may become bad.
func (r *recovery) readStatus(ctx context.Context) {
	began := time.Now()
	level, sentence := readOverview(ctx, r.overview)
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.slowest = max(r.slowest, now.Sub(began))
	fine := level == "good" || level == "warn" || strings.HasPrefix(sentence, requestsFail)
	if !fine && !slices.Contains(r.sentences, sentence) {
		r.sentences = append(r.sentences, sentence)
	}
	switch {
	case !fine:
		r.wrong, r.right = now, time.Time{}
	case r.right.IsZero():
		r.right = now
	}
}

// readOverview returns the level and the sentence of the overview. While Redis does not answer, the page has the status 503.
func readOverview(ctx context.Context, url string) (level, sentence string) {
	bounded, cancel := context.WithTimeout(ctx, statusBound)
	defer cancel()
	status, page, err := world.Send(bounded, http.DefaultClient, http.MethodGet, url, "", "")
	if err != nil {
		return "", fmt.Sprintf("the dashboard does not answer within %v", statusBound)
	}
	state := stateOf.FindSubmatch(page)
	if state == nil {
		return "", fmt.Sprintf("the dashboard answers %d without the overview", status)
	}
	return string(state[1]), html.UnescapeString(string(state[2]))
}

// times are the results of a recovery.
type times struct {
	down   time.Duration // from the fault until the last shard was back
	write  time.Duration // from a shard's return to the first acknowledged write of each of its keys, at most
	flush  time.Duration // the same to its first flush
	status time.Duration // from the last shard's return until the dashboard showed nothing wrong; 0 if it never did
}

// times returns the results. ok is false while something is missing.
func (r *recovery) times() (t times, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.right.IsZero() || time.Since(r.right) < settled {
		return t, false
	}
	for _, a := range r.ledger.accounts {
		answered, ok := a.firstAfter(r.back[a.shard])
		if !ok {
			return t, false
		}
		t.write = max(t.write, answered.Sub(r.back[a.shard]))
	}
	var last time.Time
	for shard, back := range r.back {
		if back.After(last) {
			last = back
		}
		first := slices.IndexFunc(r.flushes[shard], func(f flush) bool { return f.began.After(back) })
		if first < 0 {
			return t, false
		}
		t.flush = max(t.flush, r.flushes[shard][first].seen.Sub(back))
	}
	t.down = last.Sub(r.fault)
	if !r.wrong.IsZero() {
		t.status = max(0, r.right.Sub(last))
	}
	return t, true
}
