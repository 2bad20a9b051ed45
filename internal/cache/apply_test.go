package cache_test

import (
	"context"
	"math"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestWritesCountAndMakeDirty(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a", "b")

	got := b.do(t, increment("a", 5), increment("a", -7), set("b", 42), get("a"), del("b"), get("b"))

	require.Equal(t, cache.Outcome{Value: 5, Version: 1, Exists: true, Known: true, Backlog: 2}, bare(got[0]))
	require.Equal(t, cache.Outcome{Value: -2, Version: 2, Exists: true, Known: true}, bare(got[1]))
	require.Equal(t, int64(42), got[2].Value)
	require.Equal(t, cache.Outcome{Value: -2, Version: 2, Exists: true, Known: true}, bare(got[3]))
	require.Equal(t, int64(2), got[4].Version)
	require.Equal(t, cache.Outcome{Version: 2, Known: true}, bare(got[5]))
	require.True(t, b.dirty(t, "a"))
	require.True(t, b.dirty(t, "b"))
	require.Equal(t, map[string]string{"v": "0", "n": "2", "x": "1"}, b.entry(t, "b"))
}

func TestDeletedCounterRestartsAtZeroAndKeepsItsVersion(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, set("a", 100), del("a"))

	got := b.do(t, del("a"), increment("a", 3))

	require.Equal(t, cache.Outcome{Version: 2, Known: true}, bare(got[0]), "deleting a deleted counter is no write")
	require.Equal(t, int64(3), got[1].Value)
	require.Equal(t, int64(3), got[1].Version)
	require.Equal(t, map[string]string{"v": "3", "n": "3"}, b.entry(t, "a"))
}

func TestColdKeyIsNotAppliedUnlessBlind(t *testing.T) {
	t.Parallel()
	b := setup(t)

	for _, o := range b.do(t, increment("a", 1), set("a", 7), del("a"), get("a")) {
		require.True(t, o.Cold)
		require.NotEmpty(t, o.Token)
		require.False(t, o.BlindWrites)
	}
	require.Empty(t, b.entry(t, "a"))
	require.False(t, b.dirty(t, "a"))
}

func TestBlindWritesRecordTheirUnknownBase(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		ops  []counter.Operation
		want map[string]string
	}{
		"increments": {[]counter.Operation{increment("a", 2), increment("a", 3)}, map[string]string{"v": "5", "n": "2", "u": "1"}},
		"set": {
			[]counter.Operation{increment("a", 2), set("a", 9), increment("a", 1)},
			map[string]string{"v": "10", "n": "3", "s": "1"},
		},
		"delete": {[]counter.Operation{increment("a", 2), del("a")}, map[string]string{"v": "0", "n": "2", "s": "1", "x": "1"}},
		"written after a delete": {
			[]counter.Operation{del("a"), increment("a", 4)},
			map[string]string{"v": "4", "n": "2", "s": "1"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			for _, o := range b.blind(t, c.ops...) {
				require.NoError(t, o.Err)
				require.False(t, o.Known)
			}
			require.Equal(t, c.want, b.entry(t, "a"))
			require.True(t, b.dirty(t, "a"))
			o := b.do(t, get("a"))[0]
			require.True(t, o.Cold && o.BlindWrites, "its value is unknown")
		})
	}
}

func TestOverflowChangesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, set("a", math.MaxInt64-1))
	before := b.entry(t, "a")

	got := b.do(t, increment("a", 2), increment("a", math.MaxInt64))

	require.Equal(t, counter.CodeOverflow, counter.CodeOf(got[0].Err))
	require.Equal(t, counter.CodeOverflow, counter.CodeOf(got[1].Err))
	require.Equal(t, before, b.entry(t, "a"))
	require.Equal(t, int64(math.MaxInt64), b.do(t, increment("a", 1))[0].Value)
}

// Lua's doubles must never round a value: for any operations, the script agrees with 64-bit arithmetic.
func TestArithmeticIsExact(t *testing.T) {
	t.Parallel()
	b := setup(t)
	interesting := rapid.OneOf(
		rapid.Int64(), rapid.Int64Range(-1000, 1000),
		rapid.Int64Range(999_999_999_999_990, 1_000_000_000_000_010), rapid.Int64Range(-1_000_000_000_000_010, -999_999_999_999_990),
		rapid.Int64Range(1<<53-5, 1<<53+5), rapid.Int64Range(math.MaxInt64-5, math.MaxInt64), rapid.Int64Range(math.MinInt64, math.MinInt64+5),
	)
	serial := 0
	rapid.Check(t, func(rt *rapid.T) {
		serial++
		key := counter.Key("k" + strconv.Itoa(serial))
		start := interesting.Draw(rt, "start")
		steps := rapid.SliceOfN(interesting, 1, 10).Draw(rt, "steps")
		ops := []counter.Operation{set(key, start)}
		for _, by := range steps {
			ops = append(ops, increment(key, by))
		}
		b.warm(t, key)
		got := b.do(t, ops...)
		value, version := start, int64(1)
		for i, by := range steps {
			sum := value + by
			if (sum > value) != (by > 0) && by != 0 {
				require.Equal(rt, counter.CodeOverflow, counter.CodeOf(got[i+1].Err))
				continue
			}
			value, version = sum, version+1
			require.NoError(rt, got[i+1].Err)
			require.Equal(rt, value, got[i+1].Value)
			require.Equal(rt, version, got[i+1].Version)
		}
	})
}

func TestOnlyTheWriteThatMakesAKeyDirtyHasABacklog(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := []counter.Key{}
	for i := range 20 {
		key := counter.Key("k" + strconv.Itoa(i))
		if b.cache.Shard(key) == 1 {
			keys = append(keys, key)
		}
	}
	require.GreaterOrEqual(t, len(keys), 3)
	b.warm(t, keys...)
	require.Equal(t, int64(1), b.do(t, increment(keys[0], 1))[0].Backlog)
	got := b.do(t, increment(keys[0], 1), increment(keys[1], 1), increment(keys[2], 1), increment(keys[1], 1))
	require.Equal(t, []int64{0, 3, 3, 0}, []int64{got[0].Backlog, got[1].Backlog, got[2].Backlog, got[3].Backlog})
}

func TestBackpressureStillAdmitsWritesToDirtyKeys(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "dirty", "clean")
	b.do(t, increment("dirty", 1))
	w := b.cache.NewWriter(func() bool { return false })
	t.Cleanup(w.Close)

	got := w.Do(t.Context(), []cache.Write{
		{Operation: increment("dirty", 1)},
		{Operation: increment("clean", 1)},
		{Operation: get("clean")},
		{Operation: increment("cold", 1), Blind: true},
	})

	require.NoError(t, got[0].Err)
	require.Equal(t, counter.CodeBackpressure, counter.CodeOf(got[1].Err))
	require.NoError(t, got[2].Err)
	require.Equal(t, counter.CodeBackpressure, counter.CodeOf(got[3].Err))
	require.False(t, b.dirty(t, "clean"))
}

func TestUnexpectedTypeFailsOnlyItsOwnKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a", "c")
	require.NoError(t, b.redis.Set(context.Background(), b.entryKey("b"), "a string", 0).Err())

	got := b.do(t, increment("a", 1), increment("b", 1), increment("c", 1))

	require.NoError(t, got[0].Err)
	require.Equal(t, counter.CodeInternal, counter.CodeOf(got[1].Err))
	require.NoError(t, got[2].Err)
}

func TestWrittenEntryNeverExpires(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.hydrate(t, cache.Base{Key: "a", Found: true, Row: counter.Row{Value: 1, Version: 1}}, cache.Hydrated)
	b.warm(t, "absent")
	ttl := func(key counter.Key) time.Duration {
		d, err := b.redis.PTTL(context.Background(), b.entryKey(key)).Result()
		require.NoError(t, err)
		return d
	}
	require.Greater(t, ttl("a"), 59*time.Minute, "hydrated only")
	require.Positive(t, ttl("absent"))
	require.LessOrEqual(t, ttl("absent"), 10*time.Second, "no write followed")
	for range 2 {
		b.do(t, increment("a", 1), increment("absent", 1))
		require.Equal(t, time.Duration(-1), ttl("a"), "dirty")
		require.Equal(t, time.Duration(-1), ttl("absent"), "dirty")
		b.flush(t, "a")
		require.False(t, b.dirty(t, "a"))
		require.Equal(t, time.Duration(-1), ttl("a"), "even a clean entry: only eviction removes it")
	}
}

func TestWriteToADeadRedisIsReportedAsNotApplied(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	b := setupOn(t, server.URL())
	b.warm(t, "a")
	server.Kill()

	// The first may go out on a connection that the client does not know to be broken: then its outcome is unknown.
	code := counter.CodeOf(b.do(t, increment("a", 1))[0].Err)
	require.Contains(t, []counter.Code{counter.CodeCacheUnavailable, counter.CodeOutcomeUnknown}, code)
	for range 200 {
		o := b.do(t, increment("a", 1))[0]
		require.Equal(t, counter.CodeCacheUnavailable, counter.CodeOf(o.Err))
		require.NotContains(t, o.Err.Error(), "before this one", "a caller that comes after the answer gets a call of its own")
	}

	require.NoError(t, server.Start(t.Context()))
	localtest.Eventually(t, 5*time.Second, func() (bool, string) {
		o := b.do(t, get("a"))[0]
		return o.Cold, "still no answer"
	})
}
