package cache_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// The client checks for a killed node once a second, and only then notices that it was closed.
func TestMain(m *testing.M) {
	localtest.Main(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// testBundle is a cache of a few shards on a Redis database of its own, with a writer.
type testBundle struct {
	cache  *cache.Cache
	writer *cache.Writer
	redis  redis.UniversalClient
}

const testShards = 4

func setup(t *testing.T) *testBundle {
	t.Helper()
	return setupOn(t, localtest.RedisURL(t))
}

func setupOn(t *testing.T, url string) *testBundle {
	t.Helper()
	client, err := cache.Connect(url, 10)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	c := cache.New(client, cache.Options{Shards: testShards, CleanTTL: time.Hour})
	w := c.NewWriter(func() bool { return true })
	t.Cleanup(w.Close)
	return &testBundle{cache: c, writer: w, redis: client}
}

func increment(key counter.Key, by int64) counter.Operation {
	return counter.Operation{Key: key, Kind: counter.Increment, Amount: by}
}

func set(key counter.Key, value int64) counter.Operation {
	return counter.Operation{Key: key, Kind: counter.Set, Amount: value}
}

func del(key counter.Key) counter.Operation { return counter.Operation{Key: key, Kind: counter.Delete} }

func get(key counter.Key) counter.Operation { return counter.Operation{Key: key, Kind: counter.Get} }

// do sends operations in one call.
func (b *testBundle) do(t *testing.T, ops ...counter.Operation) []cache.Outcome {
	t.Helper()
	return b.send(t, false, ops)
}

// blind sends operations that may be applied to an unknown base.
func (b *testBundle) blind(t *testing.T, ops ...counter.Operation) []cache.Outcome {
	t.Helper()
	return b.send(t, true, ops)
}

// send sends operations in one call. It accepts unchecked entries, as the write path does while Postgres does not answer.
func (b *testBundle) send(t *testing.T, blind bool, ops []counter.Operation) []cache.Outcome {
	t.Helper()
	writes := make([]cache.Write, len(ops))
	for i, op := range ops {
		writes[i] = cache.Write{Operation: op, Blind: blind && op.Kind != counter.Get}
	}
	outcomes := b.writer.Do(t.Context(), writes)
	var again []cache.Write
	for i, o := range outcomes {
		if o.Unchecked {
			writes[i].Accept = true
			again = append(again, writes[i])
		}
	}
	if len(again) > 0 {
		accepted := b.writer.Do(t.Context(), again)
		for i, o := range outcomes {
			if o.Unchecked {
				outcomes[i], accepted = accepted[0], accepted[1:]
			}
		}
	}
	return outcomes
}

// bare returns an outcome without the epochs of its shard.
func bare(o cache.Outcome) cache.Outcome {
	o.Epoch, o.First = 0, 0
	return o
}

// warm creates entries for keys without a row.
func (b *testBundle) warm(t *testing.T, keys ...counter.Key) {
	t.Helper()
	for _, key := range keys {
		b.hydrate(t, cache.Base{Key: key}, cache.Hydrated)
	}
}

// hydrate hydrates one base with the current token.
func (b *testBundle) hydrate(t *testing.T, base cache.Base, want cache.Hydration) {
	t.Helper()
	if base.Token == "" {
		base.Token = b.token(t, base.Key)
	}
	base.Row.Key = base.Key
	got, err := b.cache.Hydrate(t.Context(), []cache.Base{base})
	require.NoError(t, err)
	require.Equal(t, []cache.Hydration{want}, got)
}

// token returns the token of key's shard, as a flush reads it.
func (b *testBundle) token(t *testing.T, key counter.Key) string {
	t.Helper()
	// After a restart the first script that changes a shard opens the epoch that the token names. This one changes nothing else.
	_, err := b.cache.Hydrate(t.Context(), []cache.Base{{Key: key, Token: "none"}})
	require.NoError(t, err)
	snapshot, err := b.cache.Read(t.Context(), b.cache.Shard(key), []counter.Key{key})
	require.NoError(t, err)
	return snapshot.Token
}

// read returns the entry of a key, even a missing or corrupt one.
func (b *testBundle) read(t *testing.T, key counter.Key) cache.Entry {
	t.Helper()
	snapshot, err := b.cache.Read(t.Context(), b.cache.Shard(key), []counter.Key{key})
	require.NoError(t, err)
	require.Len(t, snapshot.Entries, 1)
	return snapshot.Entries[0]
}

// dirtyEntry returns the entry of a key that must be dirty.
func (b *testBundle) dirtyEntry(t *testing.T, key counter.Key) cache.Entry {
	t.Helper()
	require.True(t, b.dirty(t, key), "%q is not dirty", key)
	return b.read(t, key)
}

// seal takes the shard of a key for a flush; there must be something to flush.
func (b *testBundle) seal(t *testing.T, key counter.Key) *cache.Epoch {
	t.Helper()
	e := b.take(t, b.cache.Shard(key), cache.Taking{})
	require.Contains(t, []cache.SealState{cache.Sealed, cache.Found}, e.State)
	return e
}

func (b *testBundle) take(t *testing.T, shard counter.Shard, taking cache.Taking) *cache.Epoch {
	t.Helper()
	if taking.Owner == "" {
		taking.Owner, taking.Lease = "test", time.Minute
	}
	e, err := b.cache.Seal(t.Context(), shard, taking)
	require.NoError(t, err)
	return &e
}

// keysOf returns the keys of a sealed epoch in order.
func (b *testBundle) keysOf(t *testing.T, e *cache.Epoch) []counter.Key {
	t.Helper()
	const limit = 100
	var keys []counter.Key
	for cursor := uint64(0); ; {
		page, next, err := b.cache.EpochKeys(t.Context(), e, cursor, limit)
		require.NoError(t, err)
		keys = append(keys, page...)
		if cursor = next; cursor == 0 {
			break
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// commit commits an epoch, and returns whether it was the sealed one.
func (b *testBundle) commit(t *testing.T, e *cache.Epoch) bool {
	t.Helper()
	_, done, err := b.cache.Commit(t.Context(), e)
	require.NoError(t, err)
	return done
}

func (b *testBundle) drop(t *testing.T, e *cache.Epoch, keys ...counter.Key) bool {
	t.Helper()
	done, err := b.cache.Drop(t.Context(), e, keys)
	require.NoError(t, err)
	return done
}

// flush flushes the shard of a dirty key as if Postgres accepted every row.
func (b *testBundle) flush(t *testing.T, key counter.Key) {
	t.Helper()
	e := b.seal(t, key)
	require.Contains(t, b.keysOf(t, e), key)
	require.True(t, b.commit(t, e))
}

// dirty reports whether the key is dirty, without using the code under test. It fails the test if no flush would find the dirty key.
func (b *testBundle) dirty(t *testing.T, key counter.Key) bool {
	t.Helper()
	ctx, tag, name := context.Background(), b.tag(key), string(key)
	pipe := b.redis.Pipeline()
	open, sealed := pipe.SIsMember(ctx, tag+":open", name), pipe.SIsMember(ctx, tag+":sealed", name)
	retry, dead := pipe.ZScore(ctx, tag+":retry", name), pipe.HExists(ctx, tag+":dead", name)
	if _, err := pipe.Exec(ctx); err != nil {
		require.ErrorIs(t, err, redis.Nil)
	}
	member, aside := open.Val() || sealed.Val(), retry.Err() == nil || dead.Val()
	e := b.whole(t, key)
	switch {
	case len(e) == 0:
		return member || aside
	case e["a"] != "":
		require.True(t, aside, "%q has the flag of a set-aside key, but is in neither retry nor dead", key)
		return true
	case number36(t, e["e"]) > number36(t, b.meta(t, key)["watermark"]):
		require.True(t, member, "%q is dirty, but no flush finds it", key)
		return true
	}
	return false
}

// number36 reads an epoch; "" is 0.
func number36(t *testing.T, text string) int64 {
	t.Helper()
	if text == "" {
		return 0
	}
	n, err := strconv.ParseInt(text, 36, 64)
	require.NoError(t, err)
	return n
}

// entry returns the state in the entry of a key.
func (b *testBundle) entry(t *testing.T, key counter.Key) map[string]string {
	t.Helper()
	m := b.whole(t, key)
	for _, field := range []string{"e", "l", "b", "w", "p"} {
		delete(m, field)
	}
	return m
}

// whole returns all fields of the entry of a key.
func (b *testBundle) whole(t *testing.T, key counter.Key) map[string]string {
	t.Helper()
	return localtest.EntryFields(b.text(t, key))
}

// checked adds what the entry of a key has that was hydrated or checked in this incarnation of Redis.
func (b *testBundle) checked(t *testing.T, key counter.Key, state map[string]string) map[string]string {
	t.Helper()
	state["e"], state["l"] = "0", b.meta(t, key)["first"]
	return state
}

// text returns the entry of a key; "" if there is none.
func (b *testBundle) text(t *testing.T, key counter.Key) string {
	t.Helper()
	text, err := b.redis.Get(context.Background(), b.entryKey(key)).Result()
	if errors.Is(err, redis.Nil) {
		return ""
	}
	require.NoError(t, err)
	return text
}

// metaFields are the fields of a shard's meta key, in order.
var metaFields = []string{"open", "since", "watermark", "first", "incarnation", "sealed", "sealed since", "requeued"}

// meta returns the fields of a shard's meta key, without those that are 0.
func (b *testBundle) meta(t *testing.T, key counter.Key) map[string]string {
	t.Helper()
	text, err := b.redis.Get(context.Background(), b.tag(key)+":meta").Result()
	if errors.Is(err, redis.Nil) {
		return nil
	}
	require.NoError(t, err)
	meta := make(map[string]string)
	words := strings.Split(text, " ")
	require.Len(t, words, len(metaFields))
	for i, word := range words {
		if word != "0" {
			meta[metaFields[i]] = word
		}
	}
	return meta
}

// setMeta changes a field of the meta key of key's shard by hand.
func (b *testBundle) setMeta(t *testing.T, key counter.Key, field, value string) {
	t.Helper()
	name := b.tag(key) + ":meta"
	text, err := b.redis.Get(t.Context(), name).Result()
	require.NoError(t, err)
	words := strings.Split(text, " ")
	words[slices.Index(metaFields, field)] = value
	require.NoError(t, b.redis.Set(t.Context(), name, strings.Join(words, " "), 0).Err())
}

func (b *testBundle) tag(key counter.Key) string { return "{aw:" + b.cache.Shard(key).String() + "}" }

func (b *testBundle) entryKey(key counter.Key) string { return b.tag(key) + ":c:" + string(key) }

// alike returns n keys of shard 01, in order.
func (b *testBundle) alike(n int) []counter.Key {
	var keys []counter.Key
	for i := 0; len(keys) < n; i++ {
		if key := counter.Key(fmt.Sprintf("k%06d", i)); b.cache.Shard(key) == 1 {
			keys = append(keys, key)
		}
	}
	return keys
}

// fill makes Redis refuse commands that need memory, as at maxmemory; empty ends that.
func (b *testBundle) fill(t *testing.T) {
	t.Helper()
	require.NoError(t, b.redis.ConfigSet(t.Context(), "maxmemory", "1").Err())
	require.ErrorContains(t, b.redis.Set(t.Context(), "x", "y", 0).Err(), "OOM")
}

func (b *testBundle) empty(t *testing.T) {
	t.Helper()
	require.NoError(t, b.redis.ConfigSet(t.Context(), "maxmemory", "0").Err())
}

// restart simulates a restart of Redis: it changes the incarnation in the meta key of each shard.
func (b *testBundle) restart(t *testing.T) {
	t.Helper()
	seen := make(map[counter.Shard]bool)
	for i := 0; len(seen) < b.cache.Shards(); i++ {
		key := counter.Key(strconv.Itoa(i))
		if shard := b.cache.Shard(key); !seen[shard] {
			seen[shard] = true
			if b.meta(t, key) != nil {
				b.setMeta(t, key, "incarnation", "before")
			}
		}
	}
}
