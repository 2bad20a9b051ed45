package cache

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// failureHook records when a call failed because Redis did not answer, or because a server is not the master or not ready.
type failureHook struct{ last *atomic.Int64 }

// DialHook passes on: a call fails too.
func (failureHook) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook observes single commands.
func (h failureHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		h.observe(err)
		return err
	}
}

// ProcessPipelineHook observes pipelines.
func (h failureHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		h.observe(err)
		return err
	}
}

func (h failureHook) observe(err error) {
	if Away(err) {
		h.last.Store(time.Now().UnixNano())
	}
}

// Away reports whether a call failed because Redis did not answer, or because the server is not the master or not ready. A failover may be
// the reason, so that a later call reaches another server.
func Away(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, redis.ErrPoolTimeout) ||
		refusalOf(err, elsewhere) != ""
}

// SinceFailure returns how long ago a call of this process to Redis last failed because Redis, or a node of the cluster, did not answer or
// was not the master. ok is false if none has failed. It does not block.
func (c *Cache) SinceFailure() (ago time.Duration, ok bool) {
	last := c.failed.Load()
	return time.Since(time.Unix(0, last)), last != 0
}
