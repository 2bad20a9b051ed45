// Package load generates the load of the benchmark, and starts the peers that afterwrite is compared with.
//
//   - WRK runs a closed loop with wrk, to measure the capacity of a server.
//   - Open runs an open loop at a fixed rate, to measure the latency of writes from the time when they were due.
//   - RedisBenchmark, PGBenchUpsert and PGBenchInsert measure Redis and Postgres alone, with their own tools.
//   - StartPeer runs one of the peers in proof/bench/peer; Webdis runs webdis, an HTTP server for Redis commands.
//
// The tools come from the Debian packages wrk, webdis, redis-tools and postgresql. An error names a missing tool.
package load

import (
	"time"
)

// Keys is the distribution of the keys of the requests.
type Keys string

// The distributions.
const (
	Hot     Keys = "hot"     // always the same key
	Zipf    Keys = "zipf"    // key n with a weight of 1/n^1.1
	Uniform Keys = "uniform" // all keys with the same weight
)

// Form is the kind of a single request.
type Form string

// The forms.
const (
	FormIncrement Form = ""       // POST /v1/counters/<key>/increment with {"by":1}
	FormGet       Form = "get"    // GET /v1/counters/<key>
	FormWebdis    Form = "webdis" // GET /INCRBY/<key>/1
)

// keyPrefix is the beginning of a key; 12 digits follow.
const keyPrefix = "counter:"

// HTTPSpec describes the load of WRK.
type HTTPSpec struct {
	URL         string // http://127.0.0.1:port
	Keys        Keys
	Space       int // number of keys, at most 1,000,000; Hot ignores it
	Connections int // at least 2
	Duration    time.Duration
	Batch       int    // number of increments in each POST /v1/batch; 0 for single requests
	Form        Form   // of single requests
	APIKey      string // sent with each request as Authorization: Bearer; "" for none
	Seed        uint64 // seed of the random keys
}
