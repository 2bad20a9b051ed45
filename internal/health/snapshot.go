package health

import (
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
)

// Sample has the numbers of one second. Its JSON names are short, because a page gets 900 samples.
type Sample struct {
	At       int64   `json:"t"`   // ms by Redis's clock
	Writes   float64 `json:"w"`   // accepted operations, 1/s; -1: unknown
	Rows     float64 `json:"r"`   // rows committed by Postgres, 1/s; -1: unknown
	Rejected float64 `json:"x"`   // requests answered 503, 504 or 500, 1/s; -1: unknown
	Dirty    int64   `json:"d"`   // keys with unsynced writes, except dead ones
	Dead     int64   `json:"k"`   // dead keys
	Retrying int64   `json:"p"`   // keys that wait for a retry, because Postgres refused them or their rows were locked
	Oldest   int64   `json:"o"`   // ms since the oldest unsynced write of keys that are neither dead nor waiting for a retry
	LagP50   int64   `json:"l50"` // ms from the first unsynced write to the commit, over the last 10 s; -1: nothing was flushed
	LagP99   int64   `json:"l99"` // the same for 99 %

	Away int64 `json:"a,omitempty"` // shards that did not answer, which the other numbers do not include
}

// Snapshot is the newest Sample with its details and its history.
type Snapshot struct {
	Sample

	Shards    []cache.ShardBacklog
	Processes []Heartbeat // the last one of each process
	Prefix    string      // prefix of keys and queues: see cache.Options
	Paused    []string    // queues that an operator paused, sorted by name, without Prefix
	Redis     cache.Info  // at most a few seconds old

	// Traffic is empty in the first sample, and if Unread.
	Traffic Traffic

	// Unread: the cluster node with the heartbeats does not answer, so Processes is empty.
	Unread bool
	// Refusal is the error code with which Redis refuses writes (see cache.Refusal), or "".
	Refusal string
	// Deferred counts the deferrals of locked or slow rows in the last deferredWindow samples. It is 0 if Unread.
	Deferred int64
	// LagBound is the highest bound of the sync lag's histogram, in ms. A percentile with this value may be larger. 0: nothing was flushed.
	LagBound int64

	// A Monitor sets the fields below.

	Starting bool          // there is no sample yet
	Failed   time.Duration // how long Redis has not answered, or not served; 0: it serves
	Denial   string        // the error code with which Redis refuses to serve (see cache.Denial), or ""
	// Short is how long Redis has not answered, refused writes or lacked shards; 0: it is whole.
	Short time.Duration
	// Promoted is how long ago the Monitor noticed that another server has become a master, up to promotedFor; 0: none has.
	Promoted time.Duration
	// Missed: heartbeats were lost within the last seconds, so processes without one may be running.
	Missed bool
	// Back: Redis works again after an outage that ended less than trendWindow ago.
	Back    bool
	History []Sample // samples of the last 15 minutes, oldest first, including this one
	Then    ShardsAt // the shards at the beginning of the trend's window
}

// ShardsAt are the shards at one time.
type ShardsAt struct {
	At     int64 // ms by Redis's clock; 0: unknown
	Shards []cache.ShardBacklog
}

// Unheard reports whether processes may be running although their heartbeats are missing.
func (s Snapshot) Unheard() bool { return s.Missed || s.Unread || s.Refusal != "" }
