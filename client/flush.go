package client

import (
	"context"
	"net/http"
	"time"
)

// Left is what Postgres still lacks after a Flush.
type Left struct {
	Dirty    int64 `json:"dirty"`    // counters that were written before the Flush and that Postgres lacks
	Retrying int64 `json:"retrying"` // those of them that wait for another attempt
	Dead     int64 `json:"dead"`     // counters whose row Postgres has refused for good; they are not in Dirty
}

// Flush has the workers write the counters with the keys, or all if keys is empty, and waits for up to Wait (default 5 s) until Postgres
// has what was written before. It succeeds after that time, too: see Left.Dirty. keys may have up to MaxOperations.
func (c *Client) Flush(ctx context.Context, keys []string, opts ...Option) (Left, error) {
	o, err := options(kindFlush, opts)
	if err != nil {
		return Left{}, err
	}
	r := &request{
		doing: "flush", method: http.MethodPost, path: "/v1/flush", safe: true, patience: 5 * time.Second,
		header: map[string]string{"Prefer": o.prefer()},
	}
	if o.waits {
		r.patience = o.wait
	}
	if len(keys) > 0 {
		for _, key := range keys {
			if err := checkKey(key); err != nil {
				return Left{}, err
			}
		}
		r.body = encode(map[string]any{"keys": keys})
	}
	a, err := c.send(ctx, r)
	if err != nil {
		return Left{}, err
	}
	var left Left
	if err := a.decode(&left); err != nil {
		return Left{}, r.unreadable(err)
	}
	return left, nil
}
