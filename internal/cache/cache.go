// Package cache is the Redis side of afterwrite: the entries that hold counters, the epochs that say which of them Postgres
// does not have yet, and the Lua scripts that change both in one atomic step.
//
//   - Writer batches the operations of concurrent requests into one script call (apply.lua).
//   - Cache.Hydrate brings in what Postgres has of cold keys (hydrate.lua).
//   - Cache.Seal takes a shard for a flush and seals its open epoch (seal.lua), Cache.EpochKeys and Cache.Read read it, and
//     Cache.Commit moves the watermark when Postgres has all of it (commit.lua).
//   - Cache.SetAside, Cache.Bury, Cache.Settle and Cache.Requeue are about keys that Postgres refused (aside.lua, settle.lua,
//     requeue.lua), and Cache.Reconcile repairs those of which Postgres has more than a Redis that lost its tail (reconcile.lua).
//   - Cache.EvictIdle removes entries that are clean and have not been written for long (evict.lua).
//
// # Keys
//
// Every key of a shard carries the shard's hash tag, so that a script on one shard works on Redis Cluster too.
//
//	{aw:07}:c:<key>   string  the entry: value, version, epoch of the last write, and rarely more (see entry.lua)
//	{aw:07}:open      set     keys written in the open epoch
//	{aw:07}:sealed    set     keys of the epoch that is being flushed
//	{aw:07}:meta      string  the IDs of its epochs, and since when they have keys (see entry.lua)
//	{aw:07}:retry     zset    key -> ms when a flush may take it up again
//	{aw:07}:dead      hash    key -> Dead as JSON
//	{aw:07}:i:<ID>..  string  what an operation with an ID was and what was answered, with a TTL
//	{aw:07}:drain     string  who flushes the shard now, with a TTL
//	aw:meta           hash    shards, layout; which data it is, and who noticed that it began anew
//	aw:acks           channel a shard's tag, when keys of it have reached Postgres
//
// In a namespace every name begins with it: {ns:aw:07}:open, ns:aw:meta, ns:aw:acks (see Options.Prefix).
//
// An epoch's ID is Redis's clock in microseconds, and greater than any before it. All times are of Redis's own clock.
package cache

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// absentTTL is how long the entry of a key that Postgres does not have either is kept when no write follows: long
// enough for the write it was made for, short enough that it costs nothing.
const absentTTL = 10 * time.Second

// Options are the settings of a Cache.
type Options struct {
	// Prefix begins the name of every key, so that several installations can share a Redis: "" or "name:" (see config.Prefix).
	Prefix string

	Shards   int           // 1 to counter.MaxShards
	CleanTTL time.Duration // how long an entry is kept after its last write, once Postgres has it

	// RecordTTL is how long the answer to an operation with an ID is kept; 0 takes 24 h.
	RecordTTL time.Duration
}

const defaultRecordTTL = 24 * time.Hour

// Cache is a Redis, or a Redis Cluster, with counters in it. It is safe for concurrent use.
type Cache struct {
	client   redis.UniversalClient
	prefix   string // of every name
	shards   int
	cleanTTL time.Duration
	cluster  bool

	name  string                 // of this Cache; no other has the same
	birth atomic.Pointer[string] // of the Redis that it knows; nil: none yet

	recordTTL string   // ms
	prefixes  []string // of the entries, by shard: made once, since every operation needs one
}

// New returns a Cache on client, which stays the caller's to close. The client must not retry (see Connect).
func New(client redis.UniversalClient, options Options) *Cache {
	_, cluster := client.(*redis.ClusterClient)
	c := &Cache{
		client: client, prefix: options.Prefix, shards: options.Shards, cleanTTL: options.CleanTTL, cluster: cluster, name: rand.Text(),
		recordTTL: ms(cmp.Or(options.RecordTTL, defaultRecordTTL)),
		prefixes:  make([]string, options.Shards),
	}
	for i := range c.prefixes {
		c.prefixes[i] = c.tag(counter.Shard(i)) + ":c:"
	}
	return c
}

// Prefix begins the name of every key and queue of this installation; "" unless it shares its Redis (see Options).
func (c *Cache) Prefix() string { return c.prefix }

// Shards is the number of shards.
func (c *Cache) Shards() int { return c.shards }

// Shard is the shard of key.
func (c *Cache) Shard(key counter.Key) counter.Shard { return key.Shard(c.shards) }

// Now is the time of Redis's clock, in ms.
func (c *Cache) Now(ctx context.Context) (int64, error) {
	t, err := c.client.Time(ctx).Result()
	if err != nil {
		return 0, fmt.Errorf("ask redis for the time: %w", err)
	}
	return t.UnixMilli(), nil
}

// The names of a shard's keys.

func (c *Cache) tag(s counter.Shard) string       { return c.tagPrefix() + s.String() + "}" }
func (c *Cache) tagPrefix() string                { return "{" + c.prefix + "aw:" }
func (c *Cache) metaKey(s counter.Shard) string   { return c.tag(s) + ":meta" }
func (c *Cache) openKey(s counter.Shard) string   { return c.tag(s) + ":open" }
func (c *Cache) sealedKey(s counter.Shard) string { return c.tag(s) + ":sealed" }
func (c *Cache) retryKey(s counter.Shard) string  { return c.tag(s) + ":retry" }
func (c *Cache) deadKey(s counter.Shard) string   { return c.tag(s) + ":dead" }
func (c *Cache) drainKey(s counter.Shard) string  { return c.tag(s) + ":drain" }

func (c *Cache) entryKey(key counter.Key) string {
	return c.prefixes[c.Shard(key)] + string(key)
}

// recordKey is where the answer to the operation with this ID is kept. Neither an ID nor a key holds a NUL.
func (c *Cache) recordKey(key counter.Key, id string) string {
	return c.tag(c.Shard(key)) + ":i:" + id + "\x00" + string(key)
}

func ms(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
