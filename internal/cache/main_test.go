package cache_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// The client looks for a node that was killed once a second, and sees only then that it was closed.
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

// blind is do for operations that are taken on an unknown base.
func (b *testBundle) blind(t *testing.T, ops ...counter.Operation) []cache.Outcome {
	t.Helper()
	return b.send(t, true, ops)
}

func (b *testBundle) send(t *testing.T, blind bool, ops []counter.Operation) []cache.Outcome {
	t.Helper()
	writes := make([]cache.Write, len(ops))
	for i, op := range ops {
		writes[i] = cache.Write{Operation: op, Blind: blind && op.Kind != counter.Get}
	}
	return b.writer.Do(t.Context(), writes)
}

// warm makes entries for keys that Postgres does not have.
func (b *testBundle) warm(t *testing.T, keys ...counter.Key) {
	t.Helper()
	for _, key := range keys {
		b.hydrate(t, cache.Base{Key: key}, cache.Hydrated)
	}
}

// hydrate brings one base in with the present generation.
func (b *testBundle) hydrate(t *testing.T, base cache.Base, want cache.Hydration) {
	t.Helper()
	if base.Generation == "" {
		base.Generation = b.generation(t, base.Key)
	}
	base.Row.Key = base.Key
	got, err := b.cache.Hydrate(t.Context(), []cache.Base{base})
	require.NoError(t, err)
	require.Equal(t, []cache.Hydration{want}, got)
}

// generation of key's shard, as a flush would learn it.
func (b *testBundle) generation(t *testing.T, key counter.Key) string {
	t.Helper()
	peeked, err := b.cache.Peek(t.Context(), b.cache.Shard(key), nil, false)
	require.NoError(t, err)
	return peeked.Generation
}

// peek returns the entry of a key that must be dirty.
func (b *testBundle) peek(t *testing.T, key counter.Key) (cache.Entry, int64) {
	t.Helper()
	peeked, err := b.cache.Peek(t.Context(), b.cache.Shard(key), []counter.Key{key}, true)
	require.NoError(t, err)
	require.Len(t, peeked.Entries, 1, "%q is not dirty", key)
	return peeked.Entries[0], peeked.At
}

// dirty says whether the key is in its shard's dirty set, asked without any of our code.
func (b *testBundle) dirty(t *testing.T, key counter.Key) bool {
	t.Helper()
	err := b.redis.ZScore(context.Background(), "{aw:"+b.cache.Shard(key).String()+"}:dirty", string(key)).Err()
	if errors.Is(err, redis.Nil) {
		return false
	}
	require.NoError(t, err)
	return true
}

// entry returns the state in the entry of a key.
func (b *testBundle) entry(t *testing.T, key counter.Key) map[string]string {
	t.Helper()
	m := b.whole(t, key)
	for _, life := range []string{"e", "b", "w", "p"} {
		delete(m, life)
	}
	return m
}

// whole returns all that the entry of a key says.
func (b *testBundle) whole(t *testing.T, key counter.Key) map[string]string {
	t.Helper()
	text, err := b.redis.Get(context.Background(), b.entryKey(key)).Result()
	if errors.Is(err, redis.Nil) {
		return map[string]string{}
	}
	require.NoError(t, err)
	return localtest.EntryFields(text)
}

func (b *testBundle) entryKey(key counter.Key) string {
	return "{aw:" + b.cache.Shard(key).String() + "}:c:" + string(key)
}

// ack acks the version that the entry has now.
func (b *testBundle) ack(t *testing.T, key counter.Key) []counter.Key {
	t.Helper()
	e, at := b.peek(t, key)
	again, err := b.cache.Ack(t.Context(), b.cache.Shard(key), at, []cache.Committed{e.Committed()})
	require.NoError(t, err)
	return again
}
