package operate_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/tasks"
)

// flushBundle has no worker: drain does a worker's part.
type flushBundle struct {
	redis   redis.UniversalClient
	cache   *cache.Cache
	writer  *cache.Writer
	service *operate.Service

	drain func(shard counter.Shard) // carries out a drain; nil: drains are only recorded
	mu    sync.Mutex
	sent  []tasks.Shard
}

func setupFlush(t *testing.T) *flushBundle {
	t.Helper()
	client, err := cache.Connect(localtest.RedisURL(t), 10)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	b := &flushBundle{redis: client, cache: cache.New(client, cache.Options{Shards: 4, CleanTTL: time.Hour})}
	b.writer = b.cache.NewWriter(func() bool { return true })
	t.Cleanup(b.writer.Close)
	b.service = operate.New(operate.Options{Cache: b.cache, Redis: client, Sender: b})
	return b
}

// EnqueueContext implements tasks.Sender.
func (b *flushBundle) EnqueueContext(_ context.Context, task *asynq.Task, _ ...asynq.Option) (*asynq.TaskInfo, error) {
	shard, err := tasks.DecodeShard(task.Payload(), b.cache.Shards())
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	b.sent = append(b.sent, shard)
	b.mu.Unlock()
	if b.drain != nil {
		b.drain(shard.Shard)
	}
	return &asynq.TaskInfo{}, nil
}

func (b *flushBundle) write(t *testing.T, keys ...counter.Key) {
	t.Helper()
	for _, key := range keys {
		o := b.writer.Do(t.Context(), []cache.Write{{Operation: counter.Operation{Key: key, Kind: counter.Set, Amount: 7}, Blind: true}})[0]
		require.NoError(t, o.Err)
	}
}

func (b *flushBundle) seal(t *testing.T, shard counter.Shard) *cache.Epoch {
	t.Helper()
	e, err := b.cache.Seal(t.Context(), shard, cache.Taking{Owner: "test", Lease: time.Minute})
	require.NoError(t, err)
	return &e
}

func (b *flushBundle) commit(t *testing.T, e *cache.Epoch) {
	t.Helper()
	_, done, err := b.cache.Commit(t.Context(), e)
	require.NoError(t, err)
	require.True(t, done)
}

func (b *flushBundle) setAside(t *testing.T, key counter.Key, until time.Duration) {
	t.Helper()
	require.NoError(t, b.cache.SetAside(t.Context(), b.cache.Shard(key), []counter.Key{key}, until))
}

func (b *flushBundle) flush(t *testing.T, keys []counter.Key, timeout time.Duration) operate.Left {
	t.Helper()
	left, err := b.service.Flush(t.Context(), keys, timeout)
	require.NoError(t, err)
	return left
}

// both runs a test for a flush of keys and for a flush of everything.
func both(t *testing.T, keys []counter.Key, test func(t *testing.T, keys []counter.Key)) {
	t.Helper()
	for name, keys := range map[string][]counter.Key{"of keys": keys, "of all": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, keys)
		})
	}
}

func TestFlushWithoutATimeoutDoesNotWait(t *testing.T) {
	t.Parallel()
	both(t, []counter.Key{"a"}, func(t *testing.T, keys []counter.Key) {
		t.Helper()
		b := setupFlush(t)
		b.write(t, "a")
		require.Equal(t, operate.Left{Dirty: 1}, b.flush(t, keys, 0))
		require.Equal(t, []tasks.Shard{{Shard: b.cache.Shard("a"), Now: true}}, b.sent)
	})
}

// Otherwise a flush of a counter that is written continuously would never end.
func TestLaterWritesDoNotProlongAFlush(t *testing.T) {
	t.Parallel()
	both(t, []counter.Key{"a"}, func(t *testing.T, keys []counter.Key) {
		t.Helper()
		b := setupFlush(t)
		b.write(t, "a")
		b.drain = func(shard counter.Shard) {
			e := b.seal(t, shard)
			b.write(t, "a")
			b.commit(t, e)
		}
		require.Zero(t, b.flush(t, keys, 20*time.Second))
		require.Len(t, b.sent, 1)
	})
}

// A key with a locked row is set aside for some seconds, and becomes due during the flush.
func TestKeyThatBecomesDueDuringAFlushIsLeft(t *testing.T) {
	t.Parallel()
	both(t, []counter.Key{"held"}, func(t *testing.T, keys []counter.Key) {
		t.Helper()
		b := setupFlush(t)
		b.write(t, "held")
		e := b.seal(t, b.cache.Shard("held"))
		b.setAside(t, "held", 300*time.Millisecond)
		b.commit(t, e)
		require.Equal(t, operate.Left{Dirty: 1, Retrying: 1}, b.flush(t, keys, 0), "it is not due yet")
		require.Empty(t, b.sent)

		left := b.flush(t, keys, time.Second)

		require.Equal(t, operate.Left{Dirty: 1}, left, "it is due, but not flushed")
		require.NotEmpty(t, b.sent, "only a drain flushes it")
	})
}

// The key is in a later epoch then, so neither read finds it in its place.
func TestKeyThatIsSetAsideAndRequeuedBetweenTwoReadsIsLeft(t *testing.T) {
	t.Parallel()
	both(t, []counter.Key{"held"}, func(t *testing.T, keys []counter.Key) {
		t.Helper()
		b := setupFlush(t)
		b.write(t, "held")
		drains := 0
		b.drain = func(shard counter.Shard) {
			e := b.seal(t, shard)
			if drains++; drains == 1 {
				b.setAside(t, "held", 0)
			}
			b.commit(t, e)
			_, err := b.cache.RequeueDue(t.Context(), shard)
			require.NoError(t, err)
		}
		require.Equal(t, operate.Left{Dirty: 1}, b.flush(t, keys, 500*time.Millisecond))
		require.Equal(t, 1, drains)
		require.Zero(t, b.flush(t, keys, 20*time.Second))
		require.Equal(t, 2, drains)
	})
}

// between calls run once, between the first and the second pipeline of a read of the backlog.
type between struct{ run func() }

func (*between) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (*between) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (h *between) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		err := next(ctx, commands)
		if run := h.run; run != nil && commands[0].Name() == "time" {
			h.run = nil
			run()
		}
		return err
	}
}

func TestEpochThatIsSealedDuringAReadIsLeft(t *testing.T) {
	t.Parallel()
	for _, before := range []string{"open", "sealed"} {
		t.Run(before, func(t *testing.T) {
			t.Parallel()
			b := setupFlush(t)
			shard := b.cache.Shard("a")
			b.write(t, "a")
			var earlier *cache.Epoch
			if before == "sealed" {
				earlier = b.seal(t, shard)
				b.write(t, "a")
			}
			b.redis.AddHook(&between{run: func() {
				if earlier != nil {
					b.commit(t, earlier)
				}
				require.Equal(t, cache.Sealed, b.seal(t, shard).State)
			}})
			require.Equal(t, operate.Left{Dirty: 1}, b.flush(t, nil, 300*time.Millisecond), "it is not flushed")
			b.commit(t, b.seal(t, shard))
			require.Zero(t, b.flush(t, nil, 20*time.Second))
		})
	}
}

func TestFlushDoesNotWaitForDeadLetters(t *testing.T) {
	t.Parallel()
	both(t, []counter.Key{"a", "dead"}, func(t *testing.T, keys []counter.Key) {
		t.Helper()
		b := setupFlush(t)
		b.write(t, "a", "dead")
		require.NoError(t, b.cache.Bury(t.Context(), "dead", cache.Dead{Reason: "no", Since: time.Now(), Attempts: 1}))
		b.drain = func(shard counter.Shard) { b.commit(t, b.seal(t, shard)) }
		require.Equal(t, operate.Left{Dead: 1}, b.flush(t, keys, 20*time.Second))
	})
}

func TestFlushAsideRetriesKeysThatAreSetAside(t *testing.T) {
	t.Parallel()
	b := setupFlush(t)
	b.write(t, "a")
	e := b.seal(t, b.cache.Shard("a"))
	b.setAside(t, "a", time.Hour)
	b.commit(t, e)
	b.drain = func(shard counter.Shard) { b.commit(t, b.seal(t, shard)) }
	left, err := b.service.FlushAside(t.Context(), []counter.Key{"a"}, 20*time.Second)
	require.NoError(t, err)
	require.Zero(t, left)
}

// The Redis key of a clean entry has another type, so no flush handles it.
func TestFlushDoesNotWaitForAnUnexpectedType(t *testing.T) {
	t.Parallel()
	b := setupFlush(t)
	require.NoError(t, b.redis.LPush(t.Context(), "{aw:"+b.cache.Shard("a").String()+"}:c:a", "x").Err())
	require.Zero(t, b.flush(t, []counter.Key{"a"}, 20*time.Second))
	require.Empty(t, b.sent)
}

func TestDrainOfADeadWorkerIsSentAgain(t *testing.T) {
	t.Parallel()
	b := setupFlush(t)
	b.write(t, "a")
	b.drain = func(shard counter.Shard) {
		if e := b.seal(t, shard); e.State == cache.Found {
			b.commit(t, e)
		}
	}
	require.Zero(t, b.flush(t, nil, 20*time.Second))
	require.Len(t, b.sent, 2)
}

func TestFlushEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := setupFlush(t)
	b.write(t, "a")
	ctx, cancel := context.WithCancel(t.Context())
	b.drain = func(counter.Shard) { cancel() }
	left, err := b.service.Flush(ctx, nil, time.Minute)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, operate.Left{Dirty: 1}, left)
}
