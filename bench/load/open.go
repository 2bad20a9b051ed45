package load

import (
	"context"
	"errors"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// OpenSpec is a load of a fixed rate.
type OpenSpec struct {
	HTTPSpec

	Rate float64 // requests per second
}

// OpenResult is what Open saw. Latencies count from when a request was due.
type OpenResult struct {
	Sent   int64         `json:"sent"`   // requests that were due
	Failed int64         `json:"failed"` // of them: not answered with 2xx
	Rate   float64       `json:"rate"`   // answered with 2xx per second, until the last answer
	P50    time.Duration `json:"p50_ns"`
	P90    time.Duration `json:"p90_ns"`
	P99    time.Duration `json:"p99_ns"`
	P999   time.Duration `json:"p999_ns"`
	Max    time.Duration `json:"max_ns"`
	// LateP99 is how late the generator itself was to hand a request to its connection: a part of the latencies that is not
	// the server's.
	LateP99 time.Duration `json:"late_p99_ns"`
	// Histogram holds the latencies in µs, up to 60 s, to 3 digits.
	Histogram *hdrhistogram.Histogram `json:"-"`
}

// Open sends requests when they are due, whatever has become of earlier ones on other connections.
func Open(ctx context.Context, spec OpenSpec) (OpenResult, error) {
	return OpenResult{}, errors.New("TODO")
}
