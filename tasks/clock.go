package tasks

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// clockEvery is how often the offset of this machine's clock is measured: one TIME.
	clockEvery = 30 * time.Second

	// clockAgain is how long after a failure it is measured again.
	clockAgain = time.Second

	// clockSlack is the smallest offset that is corrected. Asynq counts in seconds.
	clockSlack = time.Second

	// nearNow tells a time from other numbers: Asynq's times are at most some months away from now.
	nearNow = 366 * 24 * time.Hour
)

// clocked is a Redis client for Asynq's clients, servers and inspectors that replaces the time of this machine by Redis's. Asynq compares
// the times that several machines put into Redis: with a clock two hours behind, the flush of a key would wait in its group for two hours.
// It shifts every number in a command that is a time near now.
type clocked struct {
	redis.UniversalClient

	offset atomic.Int64 // Redis's clock minus this machine's, ns

	measuring sync.Mutex
	measured  atomic.Int64 // when the offset was measured last, ns since started; 0: never
	started   time.Time
}

// OnRedisTime returns a client for Asynq. It passes on all commands, with Redis's time instead of this machine's if the two differ by a
// second or more. Every 30 s it asks Redis for its time first, within the bounds of that command.
//
//nolint:ireturn // it is a client like the one that it got
func OnRedisTime(client redis.UniversalClient) redis.UniversalClient {
	return &clocked{UniversalClient: client, started: time.Now().Add(-clockEvery)}
}

// EvalSha implements redis.Scripter.
func (c *clocked) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	return c.UniversalClient.EvalSha(ctx, sha, keys, c.shift(ctx, args)...)
}

// Eval implements redis.Scripter.
func (c *clocked) Eval(ctx context.Context, script string, keys []string, args ...any) *redis.Cmd {
	return c.UniversalClient.Eval(ctx, script, keys, c.shift(ctx, args)...)
}

// ZAdd implements redis.Cmdable. Asynq's servers use it to say until when they are alive.
func (c *clocked) ZAdd(ctx context.Context, key string, members ...redis.Z) *redis.IntCmd {
	return c.UniversalClient.ZAdd(ctx, key, c.shiftScores(ctx, members)...)
}

// ZAddXX implements redis.Cmdable. Asynq's servers extend the leases of their tasks with it.
func (c *clocked) ZAddXX(ctx context.Context, key string, members ...redis.Z) *redis.IntCmd {
	return c.UniversalClient.ZAddXX(ctx, key, c.shiftScores(ctx, members)...)
}

// shift returns args with Redis's time.
func (c *clocked) shift(ctx context.Context, args []any) []any {
	offset := c.correction(ctx)
	if offset == 0 {
		return args
	}
	now, shifted := time.Now(), make([]any, len(args))
	for i, arg := range args {
		if n, is := arg.(int64); is {
			arg = shiftTime(n, now, offset)
		}
		shifted[i] = arg
	}
	return shifted
}

func (c *clocked) shiftScores(ctx context.Context, members []redis.Z) []redis.Z {
	offset := c.correction(ctx)
	if offset == 0 {
		return members
	}
	now, shifted := time.Now(), make([]redis.Z, len(members))
	for i, m := range members {
		shifted[i] = redis.Z{Score: float64(shiftTime(int64(m.Score), now, offset)), Member: m.Member}
	}
	return shifted
}

// shiftTime adds offset to n, if n is a time near now in seconds or nanoseconds.
func shiftTime(n int64, now time.Time, offset time.Duration) int64 {
	if time.Duration(n-now.UnixNano()).Abs() < nearNow {
		return n + int64(offset)
	}
	if away := n - now.Unix(); away < int64(nearNow/time.Second) && away > -int64(nearNow/time.Second) {
		return n + int64(offset.Round(time.Second)/time.Second)
	}
	return n
}

// correction returns the offset; 0 if it is too small to matter. It measures it if that is due. If Redis does not answer, the
// offset stays, which is 0 at first.
func (c *clocked) correction(ctx context.Context) time.Duration {
	if last := c.measured.Load(); last == 0 {
		c.measuring.Lock() // the first callers wait for each other, so that none uses a wrong time
		c.measure(ctx, last)
	} else if time.Since(c.started)-time.Duration(last) > clockEvery && c.measuring.TryLock() {
		c.measure(ctx, last)
	}
	offset := time.Duration(c.offset.Load())
	if offset.Abs() < clockSlack {
		return 0
	}
	return offset
}

// measure measures the offset, unless another caller has done so since last. It unlocks measuring.
func (c *clocked) measure(ctx context.Context, last int64) {
	defer c.measuring.Unlock()
	if c.measured.Load() != last {
		return
	}
	before := time.Now()
	there, err := c.Time(ctx).Result()
	if err == nil {
		c.offset.Store(int64(there.Round(0).Sub(before.Round(0).Add(time.Since(before) / 2))))
	}
	at := time.Since(c.started)
	if err != nil {
		at -= clockEvery - clockAgain
	}
	c.measured.Store(max(int64(at), 1))
}
