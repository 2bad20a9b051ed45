package sample

import (
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/pulse"
)

// Sample is one second. The names in JSON are short, since a page gets 900 of them.
type Sample struct {
	At       int64   `json:"t"`   // ms by Redis's clock
	Writes   float64 `json:"w"`   // operations accepted, 1/s; -1: not known
	Rows     float64 `json:"r"`   // rows that Postgres took, 1/s; -1: not known
	Rejected float64 `json:"x"`   // requests that failed for reasons that are ours, 1/s; -1: not known
	Dirty    int64   `json:"d"`   // keys that Postgres does not have in their newest state, without the dead ones
	Dead     int64   `json:"k"`   // keys that Postgres refused for good
	Retrying int64   `json:"p"`   // keys that were put aside, and that will be tried again: Postgres refused them, or they were locked
	Oldest   int64   `json:"o"`   // ms since the first unsynced write of the keys that are neither dead nor retried
	LagP50   int64   `json:"l50"` // ms from the first unsynced write to the commit, of the last 10 s; -1: nothing was flushed
	LagP99   int64   `json:"l99"` // likewise

	Away int64 `json:"a,omitempty"` // shards that could not be asked, and are in none of these numbers
}

// Snapshot is a Sample and what it was made of.
type Snapshot struct {
	Sample

	Shards    []cache.ShardBacklog
	Processes []pulse.Pulse
	Paused    []string // queues that somebody has paused, in the order of their names
	Redis     Redis

	Unread bool // the node of a cluster that has the pulses does not answer: Processes is empty

	// Refusal is the word by which Redis refuses writes (see cache.Refusal); "": it has refused none.
	Refusal string

	// Hindered is how many rows were put aside in the last HinderedWindow samples, each time counted, since somebody else held them
	// locked or they were slow. It is 0 where Unread.
	Hindered int64

	// LagBound is the largest lag that is told from larger ones, in ms; 0: nothing was flushed. A percentile of so much is that
	// much at least.
	LagBound int64
}

// Redis is what it says of itself, some seconds old at most. Of a cluster it is the worst of what its masters say: the memory of
// the fullest, and the sum of what can be added.
type Redis struct {
	Nodes      int // masters that answer; 0: it is no cluster
	Version    string
	Role       string // master or slave; cluster: many nodes are
	Replicas   int64
	Uptime     time.Duration
	Used       int64 // bytes
	Limit      int64 // bytes; 0: none
	Policy     string
	AOF        bool
	AOFFailing bool // its last write or rewrite of the append-only file failed
	Rewriting  bool
	Ops        int64 // commands, 1/s
	Known      bool  // it has been asked
}

// Full is the part of the limit that is used, 0 where there is none.
func (r Redis) Full() float64 {
	if r.Limit == 0 {
		return 0
	}
	return float64(r.Used) / float64(r.Limit)
}
