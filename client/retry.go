package client

import (
	"context"
	"math/rand/v2"
	"time"
)

// Bounds of the pause before an attempt, beside Retry-After.
const (
	firstPause = 50 * time.Millisecond
	maxPause   = 5 * time.Second
)

// send sends a request until it has an answer that counts, or may not be repeated. A failure is an *Error.
func (c *Client) send(ctx context.Context, r *request) (*answer, error) {
	attempts := r.attempts
	if attempts == 0 {
		attempts = c.options.Attempts
	}
	doubt := false // an earlier attempt may have been applied
	for n := 1; ; n++ {
		a, e := c.attempt(ctx, r)
		if e == nil {
			a.doubt = doubt
			return a, nil
		}
		e.doing, e.Attempts = r.doing, n
		doubt = doubt || e.applied == AppliedUnknown
		mayRepeat := e.repeat && (r.safe || e.applied == AppliedNo)
		if n >= attempts || !mayRepeat || !c.pause(ctx, n, e.RetryAfter) {
			e.inDoubt(doubt)
			return nil, e
		}
	}
}

// pause waits before the attempt after the nth. It returns false, at once, if the next attempt would come too late.
func (c *Client) pause(ctx context.Context, n int, retryAfter time.Duration) bool {
	d := jitter(n)
	if retryAfter > c.options.MaxRetryAfter {
		return false
	}
	d += retryAfter
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// jitter returns a random duration up to the nth step of an exponential backoff. The whole range is random ("full jitter"), so that
// clients that failed together do not come back together.
func jitter(n int) time.Duration {
	limit := min(maxPause, firstPause<<min(n-1, 10))
	return time.Duration(rand.Int64N(int64(limit))) //nolint:gosec // not a secret
}
