package health

import (
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
)

// Sample is one second. Its names in JSON are short, because a page gets 900 of them.
type Sample struct {
	At       int64   `json:"t"`   // ms by Redis's clock
	Writes   float64 `json:"w"`   // accepted operations, 1/s; -1: not known
	Rows     float64 `json:"r"`   // rows committed by Postgres, 1/s; -1: not known
	Rejected float64 `json:"x"`   // requests that failed for a reason on the server's side, 1/s; -1: not known
	Dirty    int64   `json:"d"`   // keys whose newest state Postgres does not have, without the dead ones
	Dead     int64   `json:"k"`   // keys that Postgres refused for good
	Retrying int64   `json:"p"`   // keys that wait for a retry: Postgres refused them, or their rows were locked
	Oldest   int64   `json:"o"`   // ms since the first unsynced write of the keys that are neither dead nor retried
	LagP50   int64   `json:"l50"` // ms from the first unsynced write to the commit, over the last 10 s; -1: nothing was flushed
	LagP99   int64   `json:"l99"` // likewise

	Away int64 `json:"a,omitempty"` // shards that did not answer, and are in none of these numbers
}

// Snapshot is the newest Sample with its details, and what came before it.
type Snapshot struct {
	Sample

	Shards    []cache.ShardBacklog
	Processes []Heartbeat // the last one of each process
	Prefix    string      // begins the names of keys and queues: see cache.Options
	Paused    []string    // queues that an operator paused, sorted by name, without Prefix
	Redis     cache.Info  // a few seconds old at most

	// Unread: the cluster node with the heartbeats does not answer, so Processes is empty.
	Unread bool
	// Refusal is the word by which Redis refuses writes (see cache.Refusal), or "".
	Refusal string
	// Deferred counts rows that were deferred because they were locked or slow, in the last DeferredWindow samples.
	// Each time counts. It is 0 if Unread.
	Deferred int64
	// LagBound is the largest sync lag that the histogram can tell, in ms. A percentile of that value may be larger.
	// 0: nothing was flushed.
	LagBound int64

	// A Monitor sets the fields below.

	Starting bool          // there is no sample yet
	Failed   time.Duration // for how long Redis has not answered, or not served; 0: it does
	Denial   string        // the word by which Redis refuses to serve (see cache.Denial), or ""
	// Missed: heartbeats were lost until a moment ago, so processes without one may be running.
	Missed bool
	// Back: Redis does everything again, and did not until less than trendWindow ago.
	Back    bool
	History []Sample // of the last 15 minutes, the oldest first, this one included
	Then    ShardsAt // the shards at the beginning of the trend's window
}

// ShardsAt are the shards at one time.
type ShardsAt struct {
	At     int64 // ms by Redis's clock; 0: not known
	Shards []cache.ShardBacklog
}

// Unheard reports whether processes may run without having been able to say so.
func (s Snapshot) Unheard() bool { return s.Missed || s.Unread || s.Refusal != "" }
