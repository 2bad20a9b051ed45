package load

import (
	"context"
	"errors"
	"time"
)

// HTTPResult is what WRK saw.
type HTTPResult struct {
	Requests  int64         `json:"requests"` // that were answered
	Failed    int64         `json:"failed"`   // of them with a status of 400 or more, plus connections that broke or timed out
	Seconds   float64       `json:"seconds"`
	PerSecond float64       `json:"per_second"` // requests without those that failed
	P50       time.Duration `json:"p50_ns"`
	P99       time.Duration `json:"p99_ns"`
}

// WRK loads a server for spec.Duration (whole seconds, at least 1), each connection with one request after the other.
func WRK(ctx context.Context, spec HTTPSpec) (HTTPResult, error) {
	return HTTPResult{}, errors.New("TODO")
}
