package cache_test

import (
	"context"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// On a cluster, each node confirms its own writes.
func TestEachNodeConfirmsItsWrites(t *testing.T) {
	t.Parallel()
	clusterURL, second := two(t)
	b := setupOn(t, clusterURL)
	writes := make([]cache.Write, 0, testShards) // one for each shard
	for i := 0; len(writes) < testShards; i++ {
		if key := counter.Key("k" + strconv.Itoa(i)); int(b.cache.Shard(key)) == len(writes) {
			writes = append(writes, cache.Write{Operation: increment(key, 1), Blind: true})
		}
	}
	confirmed := func(w *cache.Writer) (errs []error) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for _, o := range w.DoUntil(t.Context(), writes, time.Now().Add(20*time.Second)) {
			if o.Err != nil {
				errs = append(errs, o.Err)
			} else {
				errs = append(errs, o.Confirmation.Await(ctx, time.Now().Add(time.Minute)))
			}
		}
		return errs
	}
	yes := func() bool { return true }
	alone := b.cache.NewDurableWriter(yes, cache.OnReplicas, 0) // no replica is needed
	t.Cleanup(alone.Close)
	for _, err := range confirmed(alone) {
		require.NoError(t, err)
	}

	one := b.cache.NewDurableWriter(yes, cache.OnReplicas, 1)
	t.Cleanup(one.Close)
	for _, o := range one.DoUntil(t.Context(), writes, time.Now().Add(20*time.Millisecond)) {
		require.NoError(t, o.Err)
		require.ErrorIs(t, o.Confirmation.Await(t.Context(), time.Now().Add(time.Minute)), cache.ErrNotReached)
	}

	second.Kill()
	errs := confirmed(alone)
	require.Error(t, errs[0])
	for _, err := range errs[1:] {
		require.NoError(t, err, "a dead node fails only its own shards")
	}
}

func TestTooFewReplicasForRedisAreNamed(t *testing.T) {
	t.Parallel()
	b := setupOn(t, localtest.OwnRedis(t, local.RedisOptions{}).URL())
	require.NoError(t, b.redis.ConfigSet(t.Context(), "min-replicas-to-write", "1").Err())
	o := b.writer.Do(t.Context(), []cache.Write{{Operation: increment("a", 1), Blind: true}})[0]
	require.Equal(t, counter.CodeCacheUnavailable, counter.CodeOf(o.Err))
	require.ErrorContains(t, o.Err, "min-replicas-to-write")
	require.ErrorContains(t, o.Err, "not applied")
	_, err := b.cache.Hydrate(t.Context(), []cache.Base{{Key: "a"}})
	require.ErrorContains(t, cache.Unapplied(err), "min-replicas-to-write")
	require.Empty(t, b.redis.Keys(t.Context(), "*").Val())
}

// answering answers the next script in place of the server, or loses its answer.
type answering struct {
	mu    sync.Mutex
	err   error // nil: nothing
	lost  bool  // the server carries the script out
	calls int
}

func (h *answering) set(err error, lost bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err, h.lost, h.calls = err, lost, 0
}

func (h *answering) scripts() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.calls
}

func (h *answering) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *answering) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (h *answering) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !strings.HasPrefix(cmd.Name(), "eval") {
			return next(ctx, cmd)
		}
		h.mu.Lock()
		h.calls++
		err, lost := h.err, h.lost
		h.err = nil
		h.mu.Unlock()
		if err != nil && !lost {
			cmd.SetErr(err)
			return err
		}
		if answer := next(ctx, cmd); err == nil {
			return answer
		}
		cmd.SetErr(err)
		return err
	}
}

// reply is an error that a server has answered with.
type reply string

func (r reply) Error() string { return string(r) }
func (reply) RedisError()     {}

// Only a refusal says that nothing has been applied. After any other error an increment might count twice.
func TestOnlyRefusedDurableCallsAreSentAgain(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err   error
		lost  bool
		again bool
		code  counter.Code
		value int64
	}{
		"refused by a replica":         {err: reply("READONLY You can't write against a read only replica."), again: true, value: 2},
		"refused in a script":          {err: reply("ERR Error running script: -READONLY You can't write"), again: true, value: 2},
		"the answer was lost":          {err: io.EOF, lost: true, code: counter.CodeOutcomeUnknown, value: 2},
		"a time-out":                   {err: os.ErrDeadlineExceeded, lost: true, code: counter.CodeOutcomeUnknown, value: 2},
		"not connected":                {err: &net.OpError{Op: "dial", Err: io.EOF}, code: counter.CodeCacheUnavailable, value: 1},
		"a script that failed halfway": {err: reply("ERR user_script:1: a nil value"), lost: true, code: counter.CodeOutcomeUnknown, value: 2},
		"a text that mentions it":      {err: reply("ERR user_script:1: no READONLY"), lost: true, code: counter.CodeOutcomeUnknown, value: 2},
		"full":                         {err: reply("OOM command not allowed"), code: counter.CodeCacheFull, value: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setupOn(t, localtest.OwnRedis(t, local.RedisOptions{}).URL())
			hook := &answering{}
			b.redis.AddHook(hook)
			w := b.cache.NewDurableWriter(func() bool { return true }, cache.OnReplicas, 0)
			t.Cleanup(w.Close)
			b.warm(t, "a")
			write := func() cache.Outcome {
				return w.DoUntil(t.Context(), []cache.Write{{Operation: increment("a", 1)}}, time.Now().Add(20*time.Second))[0]
			}
			require.NoError(t, write().Err)
			hook.set(test.err, test.lost)

			o := write()

			require.Equal(t, test.code, counter.CodeOf(o.Err))
			if test.again {
				require.Equal(t, 2, hook.scripts())
				require.NoError(t, o.Confirmation.Await(t.Context(), time.Now().Add(20*time.Second)))
			} else {
				require.Equal(t, 1, hook.scripts())
				require.Nil(t, o.Confirmation)
			}
			require.Equal(t, test.value, b.do(t, get("a"))[0].Value)
		})
	}
}

// The bound is that of resendHook.
func TestRefusedDurableCallsAreSentAgainAFewTimes(t *testing.T) {
	t.Parallel()
	primary := localtest.OwnRedis(t, local.RedisOptions{})
	b := setupOn(t, primary.URL())
	hook := &answering{}
	b.redis.AddHook(hook)
	w := b.cache.NewDurableWriter(func() bool { return true }, cache.OnReplicas, 0)
	t.Cleanup(w.Close)
	b.warm(t, "a")
	write := func(until time.Time) error {
		hook.set(nil, false)
		return w.DoUntil(t.Context(), []cache.Write{{Operation: increment("a", 1)}}, until)[0].Err
	}
	require.NoError(t, write(time.Now().Add(20*time.Second)))
	follow := func(host, port string) { require.NoError(t, b.redis.SlaveOf(t.Context(), host, port).Err()) }
	follow("127.0.0.1", "1")

	require.Equal(t, counter.CodeCacheUnavailable, counter.CodeOf(write(time.Now().Add(20*time.Second))))
	require.Equal(t, 4, hook.scripts())
	require.Equal(t, counter.CodeCacheUnavailable, counter.CodeOf(write(time.Now())))
	require.Equal(t, 1, hook.scripts(), "it would not be confirmed in time")

	time.AfterFunc(20*time.Millisecond, func() { follow("NO", "ONE") })
	require.NoError(t, write(time.Now().Add(20*time.Second)))
}
