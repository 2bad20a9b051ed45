package writepath_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// lostTail returns a write path whose Redis was restarted without its last writes: each key has value 5, version 1 there, and 7,
// version 3 in Postgres.
func lostTail(t *testing.T, keys ...counter.Key) *testBundle {
	t.Helper()
	b := setup(t)
	for _, key := range keys {
		b.stored(t, counter.Row{Key: key, Value: 5, Version: 1, Lineage: 1})
		require.Equal(t, int64(5), b.do(t, op(counter.Get, key, 0))[0].Counter.Value)
		b.stored(t, counter.Row{Key: key, Value: 7, Version: 3, Lineage: 1})
	}
	b.restart(t)
	b.reads.calls.Store(0)
	b.reads.keys.Store(0)
	return b
}

// restart simulates a restart of Redis: it changes the incarnation in the meta key of each shard.
func (b *testBundle) restart(t *testing.T) {
	t.Helper()
	names, err := b.redis.Keys(t.Context(), "*}:meta").Result()
	require.NoError(t, err)
	require.NotEmpty(t, names)
	for _, name := range names {
		text, err := b.redis.Get(t.Context(), name).Result()
		require.NoError(t, err)
		var meta [8]string
		_, err = fmt.Sscan(text, &meta[0], &meta[1], &meta[2], &meta[3], &meta[4], &meta[5], &meta[6], &meta[7])
		require.NoError(t, err)
		meta[4] = "before"
		text = fmt.Sprint(meta)
		require.NoError(t, b.redis.Set(t.Context(), name, text[1:len(text)-1], redis.KeepTTL).Err())
	}
}

func TestFirstUseAfterARestartReadsPostgresOnce(t *testing.T) {
	t.Parallel()
	bounded := counter.Unconditional()
	bounded.Max = 7
	for name, c := range map[string]struct {
		op    counter.Operation
		value int64
	}{
		"get":       {op(counter.Get, "k", 0), 7},
		"increment": {op(counter.Increment, "k", 1), 8},
		"set":       {op(counter.Set, "k", 9), 9},
		"ID":        {counter.Operation{Key: "k", Kind: counter.Increment, Amount: 1, ID: "x"}, 8},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := lostTail(t, "k")
			r := b.do(t, c.op)[0]
			require.NoError(t, r.Err)
			require.Equal(t, c.value, r.Counter.Value)
			require.Equal(t, c.value, b.do(t, op(counter.Get, "k", 0))[0].Counter.Value)
			require.Equal(t, int64(1), b.reads.calls.Load())
			require.Equal(t, int64(1), b.service.Renewed())
		})
	}
	t.Run("condition", func(t *testing.T) {
		t.Parallel()
		b := lostTail(t, "k")
		r := b.do(t, counter.Operation{Key: "k", Kind: counter.Increment, Amount: 1, Condition: &bounded})[0]
		require.Equal(t, counter.CodeOutOfBounds, counter.CodeOf(r.Err), "it is judged on the value that Postgres has")
	})
	t.Run("delete", func(t *testing.T) {
		t.Parallel()
		b := lostTail(t, "k")
		require.NoError(t, b.do(t, op(counter.Delete, "k", 0))[0].Err)
		require.Equal(t, int64(4), b.do(t, op(counter.Get, "k", 0))[0].Counter.Version)
	})
}

func TestChecksOfOneRequestShareAQuery(t *testing.T) {
	t.Parallel()
	var keys []counter.Key
	var ops []counter.Operation
	for i := range 200 {
		key := counter.Key(fmt.Sprint("k", i))
		keys, ops = append(keys, key), append(ops, op(counter.Get, key, 0))
	}
	b := lostTail(t, keys...)
	for range 2 {
		for i, r := range b.do(t, append(ops, op(counter.Get, "absent", 0))...)[:len(ops)] {
			require.NoError(t, r.Err)
			require.Equal(t, int64(7), r.Counter.Value, keys[i])
		}
	}
	require.Equal(t, int64(2), b.reads.calls.Load(), "the second is for the absent key")
	require.Equal(t, int64(len(keys)+2), b.reads.keys.Load())
}

// All readers of a counter get what Postgres has, or something newer, whichever of them checks it.
func TestConcurrentFirstUsesNeverGoBack(t *testing.T) {
	t.Parallel()
	b := lostTail(t, "k")
	var group sync.WaitGroup
	const readers, writers = 16, 8
	results := make([]counter.Result, readers)
	for i := range readers {
		group.Go(func() {
			results[i] = b.service.Do(context.Background(), []counter.Operation{op(counter.Get, "k", 0)}, writepath.Options{})[0]
		})
	}
	for range writers {
		group.Go(func() {
			b.service.Do(context.Background(), []counter.Operation{op(counter.Increment, "k", 1)}, writepath.Options{})
		})
	}
	group.Wait()
	for _, r := range results {
		require.NoError(t, r.Err)
		require.GreaterOrEqual(t, r.Counter.Version, int64(3))
	}
	require.Equal(t, int64(7+writers), b.do(t, op(counter.Get, "k", 0))[0].Counter.Value)
}

func TestMinimalWriteDoesNotCheck(t *testing.T) {
	t.Parallel()
	b := lostTail(t, "k")
	r := b.service.Do(t.Context(), []counter.Operation{op(counter.Increment, "k", 1)}, writepath.Options{Minimal: true})[0]
	require.NoError(t, r.Err)
	require.Zero(t, b.reads.calls.Load())
}

// gone is a Postgres that fails at once, or hangs until the caller's time is over.
type gone struct{ hangs bool }

func (g gone) Read(ctx context.Context, _ []counter.Key) (map[counter.Key]counter.Row, error) {
	if g.hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return nil, store.ErrUnavailable
}

func TestUncheckedEntryIsUsedWhilePostgresIsAway(t *testing.T) {
	t.Parallel()
	exists := counter.Unconditional()
	exists.Exists = true
	for _, hangs := range []bool{false, true} {
		t.Run(fmt.Sprint("hangs ", hangs), func(t *testing.T) {
			t.Parallel()
			b := lostTail(t, "k", "l")
			const bound = 100 * time.Millisecond
			service := writepath.Open(writepath.Parts{Cache: b.cache, Store: gone{hangs}, BaseTimeout: bound, Hints: b.hints})
			t.Cleanup(service.Close)
			do := func(op counter.Operation) counter.Counter {
				began := time.Now()
				r := service.Do(t.Context(), []counter.Operation{op}, writepath.Options{})[0]
				require.NoError(t, r.Err)
				require.Less(t, time.Since(began), waitLong)
				return r.Counter
			}
			require.Equal(t, int64(5), do(op(counter.Get, "k", 0)).Value)
			require.Equal(t, int64(6), do(counter.Operation{Key: "k", Kind: counter.Increment, Amount: 1, Condition: &exists}).Value)
			require.Equal(t, int64(5), do(op(counter.Get, "l", 0)).Value)

			require.Equal(t, int64(7), b.do(t, op(counter.Get, "l", 0))[0].Counter.Value, "it is checked when Postgres answers again")
		})
	}
}

// The entry is removed, or Redis restarted again, while Postgres is read.
func TestCheckSurvivesWhatHappensMeanwhile(t *testing.T) {
	t.Parallel()
	for name, meanwhile := range map[string]func(t *testing.T, b *testBundle){
		"evicted": func(t *testing.T, b *testBundle) {
			t.Helper()
			names, err := b.redis.Keys(t.Context(), "*:c:k").Result()
			require.NoError(t, err)
			require.NoError(t, b.redis.Del(t.Context(), names...).Err())
		},
		"restarted": func(t *testing.T, b *testBundle) {
			t.Helper()
			b.restart(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := lostTail(t, "k")
			var once sync.Once
			b.reads.after = func() { once.Do(func() { meanwhile(t, b) }) }
			require.Equal(t, int64(7), b.do(t, op(counter.Get, "k", 0))[0].Counter.Value)
			require.Equal(t, int64(2), b.reads.calls.Load())
		})
	}
}
