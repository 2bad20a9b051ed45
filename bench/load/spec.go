package load

import "time"

// Keys says how the keys of the requests are drawn.
type Keys string

// The ways to draw keys.
const (
	Hot     Keys = "hot"     // always the same
	Zipf    Keys = "zipf"    // key n with a weight of 1/n^1.1
	Uniform Keys = "uniform" // each equally often
)

// defaultSpace is the number of keys where none is given.
const defaultSpace = 100_000

// HTTPSpec is a load of increments by 1. Only URL, Keys and Duration are required.
type HTTPSpec struct {
	URL         string // http://127.0.0.1:port
	Keys        Keys
	Space       int // keys, 1 to 1,000,000; 0 takes 100,000
	Connections int // 0 takes 200
	Threads     int // of wrk; 0 takes 2
	Duration    time.Duration
	Batch       int    // 0: one increment a request; else operations per POST /v1/batch, at most 1,000
	Prefix      string // of the keys' names, before 12 digits; "" takes "counter:"
	Webdis      bool   // GET /INCRBY/<key>/1 instead of POST /v1/counters/<key>/increment
	Seed        uint64 // of what is drawn; the same seed draws the same
}
