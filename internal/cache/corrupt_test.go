package cache_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestCallerThatLeftBeforeTheSendGetsAnError(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "k")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 200 { // either the answer or the end of the context may win
		o := b.writer.Do(ctx, []cache.Write{{Operation: increment("k", 1)}})
		require.Error(t, o[0].Err)
	}
	require.Equal(t, "0", b.entry(t, "k")["v"])
}

func TestCorruptEntryFailsOnlyItsOwnKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, text := range map[string]string{
		"value is text":         "abc 1 0",
		"value is fractional":   "1.5 1 0",
		"long value is text":    "abcdefghijklmnopqrst 1 0",
		"value is too long":     "123456789012345678901 1 0",
		"version is text":       "1 abc 0",
		"version is negative":   "1 -1 0",
		"version is the last":   "1 9223372036854775807 0",
		"version is too long":   "1 9223372036854775808 0",
		"epoch is no number":    "1 1 a_b",
		"epoch is too long":     "1 1 zzzzzzzzzzzz",
		"something follows":     "5 6 0;abc",
		"flag is no letter":     "5 6 0:1",
		"it is the letter m":    "m",
		"there is no version":   "1",
		"there is no epoch":     "1 1",
		"an older layout":       "1 1 e000000001790000000000000 b0",
		"it is empty":           "",
		"a line within it":      "1\na 1 1 0 1",
		"blind, value is text":  "abc 1 0:u",
		"lineage is no number":  "1 1 zzzzzzzzzz l_",
		"base is no number":     "1 1 zzzzzzzzzz:u lzzzzzzzzz bx",
		"was is no number":      "1 1 zzzzzzzzzz wx",
		"ended lineage is none": "1 1 zzzzzzzzzz p;1q,x,1",
		"a flag is unknown":     "1 1 zzzzzzzzzz:q",
		"a field is unknown":    "1 1 zzzzzzzzzz q1",
		"a blank follows":       "1 1 zzzzzzzzzz ",
		"a line in the epoch":   "1 1 zzzzzzzzzz\n b0 w0",
		"a field without name":  "1 1 zzzzzzzzzz x9 b0 w0",
		"a base is too long":    "1 1 zzzzzzzzzz b12345678901234567890 w0",
		"it is no string":       "a hash",
	} {
		b.warm(t, "good")
		before := b.do(t, get("good"))[0].Value
		require.NoError(t, b.redis.Del(context.Background(), b.entryKey("bad")).Err())
		if name == "it is no string" {
			require.NoError(t, b.redis.HSet(context.Background(), b.entryKey("bad"), "v", "1", "n", "1").Err())
		} else {
			require.NoError(t, b.redis.Set(context.Background(), b.entryKey("bad"), text, 0).Err())
		}

		out := b.do(t, increment("good", 1), increment("bad", 1), increment("good", 1))

		require.NoError(t, out[0].Err, name)
		require.NoError(t, out[2].Err, name)
		require.Equal(t, before+2, out[2].Value, name)
		require.Equal(t, counter.CodeInternal, counter.CodeOf(out[1].Err), name)
		require.Equal(t, counter.CodeInternal, counter.CodeOf(b.blind(t, increment("bad", 1))[0].Err), name)
		done, err := b.cache.Hydrate(t.Context(), []cache.Base{
			{Key: "bad", Token: b.token(t, "bad")}, {Key: "good", Token: b.token(t, "good")},
		})
		require.NoError(t, err, name)
		require.Equal(t, cache.Hydrated, done[1], name)
		if name == "version is the last" {
			continue // this entry can be read
		}
		require.Equal(t, cache.CorruptEntry, done[0], name)
		require.Equal(t, counter.CodeInternal, counter.CodeOf(b.do(t, get("bad"))[0].Err), name)
	}
}

func TestEntryHydratedAgainWhileItsKeyIsDirtyDoesNotExpire(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "k")
	b.do(t, increment("k", 1))
	require.NoError(t, b.redis.Del(context.Background(), b.entryKey("k")).Err()) // by hand
	b.warm(t, "k")
	b.do(t, increment("k", 1))
	require.Equal(t, time.Duration(-1), b.redis.PTTL(context.Background(), b.entryKey("k")).Val())
}

func TestReadsSucceedBesideAWriteThatAFullRedisRefuses(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	b := setupOn(t, server.URL())
	b.warm(t, "a", "b")
	b.do(t, set("a", 7))
	b.fill(t)

	out := b.do(t, get("a"), increment("b", 1), get("b"))

	require.NoError(t, out[0].Err)
	require.Equal(t, int64(7), out[0].Value)
	require.Equal(t, counter.CodeCacheFull, counter.CodeOf(out[1].Err))
	require.NoError(t, out[2].Err)
}

func TestColdKeyIsNotHydratedUnderBackpressure(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.cache.NewWriter(func() bool { return false })
	t.Cleanup(w.Close)
	o := w.Do(t.Context(), []cache.Write{{Operation: increment("cold", 1)}})[0]
	require.False(t, o.Cold)
	require.Equal(t, counter.CodeBackpressure, counter.CodeOf(o.Err))
}

// A copy of a blind entry is restored after it was flushed: by hand, or from a snapshot of the same Redis.
func TestRestoredBlindEntryIsNotAddedTwice(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.blind(t, increment("k", 5))
	dump := b.redis.Dump(context.Background(), b.entryKey("k")).Val()
	base := cache.Base{Key: "k", Found: true, Row: counter.Row{Value: 100, Version: 10}}
	b.hydrate(t, base, cache.Hydrated)
	flushed := b.dirtyEntry(t, "k")
	require.Equal(t, int64(105), flushed.Value)

	require.NoError(t, b.redis.RestoreReplace(context.Background(), b.entryKey("k"), 0, dump).Err())
	b.hydrate(t, cache.Base{Key: "k", Found: true, Row: flushed.Row}, cache.Hydrated)

	again := b.dirtyEntry(t, "k")
	require.Equal(t, int64(105), again.Value)
	require.Equal(t, int64(11), again.Version)
}

// The key was marked by hand, or was dirty before another program overwrote it.
func TestDirtyEntryThatIsNotACounterIsCorruptAndNotMissing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "k")
	b.do(t, increment("k", 1))
	for _, text := range []string{"m", "e", "", "5 6", "5 6 0;abc", "1 9223372036854775808 0"} {
		require.NoError(t, b.redis.Set(context.Background(), b.entryKey("k"), text, 0).Err())
		require.True(t, b.read(t, "k").Corrupt, text)
		seen := b.inspect(t, "k")
		require.True(t, seen[0].Corrupt && seen[0].Dirty, text)
	}
}

// The first fields of the entry look like a counter in the open epoch.
func TestLineBreakInAnEntryDoesNotShiftAnswers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(3)
	b.warm(t, keys...)
	b.do(t, increment(keys[0], 10), increment(keys[1], 20), increment(keys[2], 30))
	for _, rest := range []string{"\nx", " b0\nx", "\n", " b0 w0\na 5 5"} {
		require.NoError(t, b.redis.Set(t.Context(), b.entryKey(keys[0]), "10 1 "+b.meta(t, keys[0])["open"]+rest, 0).Err())
		before := b.do(t, get(keys[2]))[0].Value

		got := b.do(t, increment(keys[0], 1), increment(keys[1], 1), increment(keys[2], 1))

		require.Equal(t, counter.CodeInternal, counter.CodeOf(got[0].Err), "%q", rest)
		require.NoError(t, got[1].Err)
		require.NoError(t, got[2].Err)
		require.Equal(t, before+1, got[2].Value)
	}
}

// Another program has overwritten the keys of one shard.
func TestUnexpectedTypesFailOnlyTheirShard(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]struct{ set, kind string }{
		"open is a string": {"open", "string"}, "open is a list": {"open", "list"}, "meta is a string": {"meta", "string"}, "meta is a list": {"meta", "list"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			var keys []counter.Key // one of each shard, and one more
			for i := 0; len(keys) < testShards; i++ {
				if key := counter.Key("k" + strconv.Itoa(i)); int(b.cache.Shard(key)) == len(keys) {
					keys = append(keys, key)
				}
			}
			b.warm(t, keys...)
			bad := keys[1]
			foreign := b.tag(bad) + ":" + spoil.set
			require.NoError(t, b.redis.Del(t.Context(), foreign).Err())
			if spoil.kind == "list" {
				require.NoError(t, b.redis.LPush(t.Context(), foreign, "x").Err())
			} else {
				require.NoError(t, b.redis.Set(t.Context(), foreign, "x", 0).Err())
			}
			before := b.contents(t)
			var ops []counter.Operation
			for _, key := range keys {
				ops = append(ops, increment(key, 1), increment(key, 2), with("id", increment(key, 4)), set(key, 9))
			}

			got := b.do(t, ops...)

			for i, o := range got {
				if ops[i].Key == bad {
					require.Equal(t, counter.CodeInternal, counter.CodeOf(o.Err))
					continue
				}
				require.NoError(t, o.Err)
				require.Equal(t, []int64{1, 3, 7, 9}[i%4], o.Value)
				require.Equal(t, i%4 == 0, o.Backlog > 0, "newly dirty, once")
			}
			after := b.contents(t)
			for name, value := range before {
				if len(name) > len(b.tag(bad)) && name[:len(b.tag(bad))] == b.tag(bad) {
					require.Equal(t, value, after[name], "%q: no operation was applied there", name)
				}
			}
			require.NotContains(t, after, b.recordKey(bad, "id"))
			for _, key := range keys {
				if key != bad {
					b.flush(t, key)
					require.False(t, b.dirty(t, key))
				}
			}
			require.Equal(t, counter.CodeInternal, counter.CodeOf(b.do(t, increment(bad, 1))[0].Err))
			require.NoError(t, b.redis.Del(t.Context(), foreign).Err())
			require.Equal(t, int64(1), b.do(t, increment(bad, 1))[0].Value)
			require.True(t, b.dirty(t, bad))
		})
	}
}
