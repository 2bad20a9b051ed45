// Package cache is the Redis side of afterwrite: the entries that hold counters, the epochs that record which of them Postgres lacks, and
// the Lua scripts that change both in one atomic step. docs/glossary.md defines the terms.
//
//   - Writer batches the operations of concurrent requests into one script call (apply.lua).
//   - Cache.Hydrate fills the entries of cold keys from Postgres (hydrate.lua).
//   - Cache.Seal takes a shard for a flush and seals its open epoch (seal.lua), Cache.EpochKeys and Cache.Read read it, and Cache.Commit
//     moves the watermark when Postgres has all of it (commit.lua).
//   - Cache.SetAside, Cache.Bury, Cache.Settle and Cache.Requeue handle keys that Postgres refused (aside.lua, settle.lua, requeue.lua).
//   - Cache.Reconcile repairs entries of a Redis that has lost its latest writes (reconcile.lua).
//   - Cache.ReadRecords and Cache.Trim flush the history of keys that have one (records.lua, trim.lua).
//   - Cache.EvictIdle removes clean entries that have not been written for long (evict.lua).
//   - Cache.Backlogs counts dirty keys, and ReadInfo reads what Redis reports about itself.
//
// # Keys
//
// Every key of a shard carries the shard's hash tag, so that a script on one shard works on Redis Cluster too.
//
//	{aw:07}:c:<key>   string  the entry: value, version, epoch of the last write, and rarely more (see entry.lua)
//	{aw:07}:open      set     keys written in the open epoch
//	{aw:07}:sealed    set     keys of the epoch that is being flushed
//	{aw:07}:meta      string  the IDs of its epochs, and when their first keys were written (see entry.lua)
//	{aw:07}:retry     zset    set-aside key -> ms when a flush may take it again
//	{aw:07}:dead      hash    dead key -> Dead as JSON
//	{aw:07}:h:<key>   list    records of the writes that Postgres lacks, of a key with history (see records.lua)
//	{aw:07}:hn        string  the number of these records in the shard
//	{aw:07}:i:<ID>..  string  an operation with an ID and its answer, with a TTL
//	{aw:07}:drain     string  the owner that flushes the shard, with a TTL
//	aw:meta           hash    shards, layout; the ID of this data, and the process that noticed a new ID
//	aw:acks           channel the tag of a shard whose keys have reached Postgres
//
// In a namespace every name begins with the namespace: {ns:aw:07}:open, ns:aw:meta, ns:aw:acks (see Options.Prefix).
//
// An epoch's ID is Redis's clock in microseconds, and greater than all IDs before it. All times are of Redis's clock.
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

// absentTTL is how long the entry of a key without a row is kept if no write follows: long enough for the write that created it, short
// enough to cost no memory.
const absentTTL = 10 * time.Second

// Options are the settings of a Cache.
type Options struct {
	// Prefix begins the name of every key, so that several installations can share a Redis: "" or "name:" (see config.Prefix).
	Prefix string

	Shards   int           // 1 to counter.MaxShards
	CleanTTL time.Duration // how long a clean entry is kept after its last write

	// History reports whether the operations on a key are recorded, see ReadRecords. It must not block. Nil: those on no key.
	History func(counter.Key) bool
	// MaxHistory bounds the records that Postgres lacks: each shard has an equal share. 0: no bound.
	MaxHistory int64

	// RecordTTL is how long the answer to an operation with an ID is kept; 0 means 24 h.
	RecordTTL time.Duration
}

const defaultRecordTTL = 24 * time.Hour

// Cache is a Redis or a Redis Cluster that holds counters. It is safe for concurrent use.
type Cache struct {
	client   redis.UniversalClient
	prefix   string // of every name
	shards   int
	cleanTTL time.Duration
	cluster  bool

	name  string                 // random, to tell this Cache from others
	birth atomic.Pointer[string] // the known ID of the data; nil: none yet

	failed atomic.Int64 // when a call last failed (see SinceFailure), in ns; 0: never

	history   func(counter.Key) bool // nil: no key has one
	room      int64                  // the most records of a shard
	recordTTL string                 // ms
	prefixes  []string               // of entry keys, by shard: built once, since every operation needs one
}

// New returns a Cache on client, which the caller closes. The client must not retry (see Connect).
func New(client redis.UniversalClient, options Options) *Cache {
	_, cluster := client.(*redis.ClusterClient)
	c := &Cache{
		client: client, prefix: options.Prefix, shards: options.Shards, cleanTTL: options.CleanTTL, cluster: cluster, name: rand.Text(),
		recordTTL: ms(cmp.Or(options.RecordTTL, defaultRecordTTL)),
		history:   options.History,
		room:      shareOf(options.MaxHistory, options.Shards),
		prefixes:  make([]string, options.Shards),
	}
	for i := range c.prefixes {
		c.prefixes[i] = c.tag(counter.Shard(i)) + ":c:"
	}
	client.AddHook(failureHook{&c.failed})
	return c
}

// Prefix returns what the name of every key and queue of this installation begins with; "" unless it shares its Redis (see Options).
func (c *Cache) Prefix() string { return c.prefix }

// Shards returns the number of shards.
func (c *Cache) Shards() int { return c.shards }

// Shard returns the shard of key.
func (c *Cache) Shard(key counter.Key) counter.Shard { return key.Shard(c.shards) }

// Now returns the time of Redis's clock, in ms.
func (c *Cache) Now(ctx context.Context) (int64, error) {
	t, err := c.client.Time(ctx).Result()
	if err != nil {
		return 0, fmt.Errorf("read redis's clock: %w", err)
	}
	return t.UnixMilli(), nil
}

// The keys of a shard.

func (c *Cache) tag(s counter.Shard) string       { return c.tagPrefix() + s.String() + "}" }
func (c *Cache) tagPrefix() string                { return "{" + c.prefix + "aw:" }
func (c *Cache) metaKey(s counter.Shard) string   { return c.tag(s) + ":meta" }
func (c *Cache) openKey(s counter.Shard) string   { return c.tag(s) + ":open" }
func (c *Cache) sealedKey(s counter.Shard) string { return c.tag(s) + ":sealed" }
func (c *Cache) retryKey(s counter.Shard) string  { return c.tag(s) + ":retry" }
func (c *Cache) deadKey(s counter.Shard) string   { return c.tag(s) + ":dead" }
func (c *Cache) drainKey(s counter.Shard) string  { return c.tag(s) + ":drain" }
func (c *Cache) countKey(s counter.Shard) string  { return c.tag(s) + ":hn" }

func (c *Cache) entryKey(key counter.Key) string {
	return c.prefixes[c.Shard(key)] + string(key)
}

// recordKey returns the Redis key of the recorded answer to an operation ID. Neither an ID nor a key contains a NUL.
func (c *Cache) recordKey(key counter.Key, id string) string {
	return c.tag(c.Shard(key)) + ":i:" + id + "\x00" + string(key)
}

func ms(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
