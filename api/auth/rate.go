package auth

import (
	"context"
	"fmt"
	"time"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// burstSeconds is the burst of a key in seconds of its rate.
const burstSeconds = 2

// Quota is what is left of a key's rate.
type Quota struct {
	Limit     int           // operations that fit at most; 0: the key has no limit
	Remaining int           // operations that fit now
	Reset     time.Duration // until Limit operations fit, if none come meanwhile
}

// Take takes n operations from the key's rate. If there are not as many left, it takes none, and returns an error for the client.
func (k *Key) Take(n int) (Quota, error) { return k.take(time.Now(), n) }

// Ready returns an error for the client if not even one operation is left. It takes none.
func (k *Key) Ready() (Quota, error) {
	now := time.Now()
	if k == nil || k.use.limit == nil || k.use.limit.TokensAt(now) >= 1 {
		return Quota{}, nil
	}
	return k.take(now, 1) // which fails, or else the operation is left after all
}

func (k *Key) take(now time.Time, n int) (Quota, error) {
	if k == nil || k.use.limit == nil {
		return Quota{}, nil
	}
	limit := k.use.limit
	taken := limit.AllowN(now, n)
	tokens, perSec, burst := limit.TokensAt(now), float64(limit.Limit()), limit.Burst()
	quota := Quota{Limit: burst, Remaining: max(0, int(tokens)), Reset: seconds((float64(burst) - tokens) / perSec)}
	switch {
	case taken:
		return quota, nil
	case n > burst:
		return quota, &counter.Error{
			Code: CodeRateLimited, RetryAfter: time.Second,
			Detail: fmt.Sprintf("the request has %d operations, but %s may send at most %d at once: send fewer operations",
				n, k.who(), burst),
		}
	}
	return quota, &counter.Error{
		Code: CodeRateLimited, RetryAfter: seconds((float64(n) - tokens) / perSec),
		Detail: fmt.Sprintf("%s may send %d operations a second, and has used them up", k.who(), int(perSec)),
	}
}

// Wait takes n operations from the key's rate, and blocks until they fit. It is for streams, which are read as fast as their key's rate
// allows. n may be any number. It returns the error of ctx.
func (k *Key) Wait(ctx context.Context, n int) error {
	if k == nil || k.use.limit == nil {
		return nil
	}
	for limit := k.use.limit; n > 0; {
		part := min(n, limit.Burst())
		if err := limit.WaitN(ctx, part); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return context.DeadlineExceeded // WaitN fails at once if the wait would be longer than ctx
		}
		n -= part
	}
	return nil
}

// Burst returns how many operations fit at most; 0: the key has no limit.
func (k *Key) Burst() int {
	if k == nil || k.use.limit == nil {
		return 0
	}
	return k.use.limit.Burst()
}

// who names the key in errors.
func (k *Key) who() string {
	if k.Name == "" {
		return "all clients together"
	}
	return "the API key " + k.Name
}

func seconds(s float64) time.Duration { return time.Duration(max(0, s) * float64(time.Second)) }
