package cache

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// maxResends bounds how often a refused call is sent again, and resendPause is the pause before the second time, plus or minus a
	// quarter. The third waits twice as long.
	maxResends  = 3
	resendPause = 30 * time.Millisecond
)

// resendHook sends a call again if the server has refused it because it is not the master: then nothing has been applied. If the answer was
// lost, it never sends the call again.
type resendHook struct {
	refused string                    // the refusal
	renew   func(ctx context.Context) // finds the master; bounded
	node    bool                      // of one node of a cluster, which is not the place to send the call again
}

// refusal is in the context of a call on a connection of its own, which leads to one server only. The hook does not send such a call again,
// but leaves itself here, so that the caller can do so on a connection to another server.
type refusal struct{ hook atomic.Pointer[resendHook] }

type refusalKey struct{}

func withRefusal(ctx context.Context) (context.Context, *refusal) {
	r := &refusal{}
	return context.WithValue(ctx, refusalKey{}, r), r
}

// leave reports whether somebody else has to send a refused call again, and tells them.
func (h resendHook) leave(ctx context.Context) bool {
	r, own := ctx.Value(refusalKey{}).(*refusal)
	if own {
		r.hook.Store(&h)
	}
	return own || h.node
}

// DialHook passes on.
func (resendHook) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook sends a refused command again, maxResends times at most.
func (h resendHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		for tries := 0; h.resend(err) && !h.leave(ctx) && h.wait(ctx, tries); tries++ {
			cmd.SetErr(nil)
			err = next(ctx, cmd)
		}
		return err
	}
}

// ProcessPipelineHook sends the refused commands of a pipeline again, maxResends times at most.
func (h resendHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		if err == nil || cmds[0].Name() == "multi" { // a transaction is refused as a whole
			return err
		}
		again := h.refusedOf(cmds)
		if len(again) > 0 && h.leave(ctx) {
			return err
		}
		for tries := 0; len(again) > 0 && h.wait(ctx, tries); tries++ {
			for _, cmd := range again {
				cmd.SetErr(nil)
			}
			_ = next(ctx, again) // each command has its own error
			again = h.refusedOf(again)
			err = firstError(cmds)
		}
		return err
	}
}

func (h resendHook) refusedOf(cmds []redis.Cmder) []redis.Cmder {
	var again []redis.Cmder
	for _, cmd := range cmds {
		if h.resend(cmd.Err()) {
			again = append(again, cmd)
		}
	}
	return again
}

// resend reports whether the call may be sent again: a server has answered that it has not applied it.
func (h resendHook) resend(err error) bool {
	return err != nil && refusalOf(err, []string{h.refused}) != "" // step: refused
}

// wait finds the master before another try. It returns false if there were enough tries, or ctx has ended.
func (h resendHook) wait(ctx context.Context, tries int) bool {
	if tries >= maxResends {
		return false
	}
	if tries > 0 {
		pause := time.Duration(tries) * resendPause
		timer := time.NewTimer(pause*3/4 + rand.N(pause/2)) //nolint:gosec // jitter needs no secret
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
		}
	}
	h.renew(ctx)
	return ctx.Err() == nil
}

func firstError(cmds []redis.Cmder) error {
	for _, cmd := range cmds {
		if err := cmd.Err(); err != nil {
			return err
		}
	}
	return nil
}
