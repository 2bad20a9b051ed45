package cache

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

var (
	//go:embed look.lua
	lookSource string
	//go:embed mend.lua
	mendSource string

	lookScript = redis.NewScript(entrySource + lookSource)
	mendScript = redis.NewScript(entrySource + mendSource)
)

// ScanPage bounds the keys of one page, and is about how many one SCAN visits: Redis does nothing else meanwhile.
const ScanPage = 500

// EachEntry calls page with the keys of all entries, up to ScanPage at a time, in no order. strays are names of Redis keys that
// look like an entry's but are not where one belongs. An entry that comes or goes meanwhile may be in or not; every other is
// in, and may be in twice while Redis's table grows. An error of page ends it and is returned as it is.
//
// It is one pass over the key space of each node, not one for each shard: SCAN visits every key whatever its pattern is.
// Each call to Redis is bounded.
func (c *Cache) EachEntry(ctx context.Context, page func(keys []counter.Key, strays []string) error) error {
	nodes, err := c.nodes(ctx)
	if err != nil {
		return err
	}
	for _, node := range nodes {
		for cursor := uint64(0); ; {
			found, next, err := node.Scan(ctx, cursor, "{aw:*}:c:*", ScanPage).Result()
			if err != nil {
				return fmt.Errorf("scan the entries: %w", err)
			}
			for part := range slices.Chunk(found, ScanPage) {
				if err := page(c.belonging(part)); err != nil {
					return err
				}
			}
			if cursor = next; cursor == 0 {
				break
			}
		}
	}
	return nil
}

// nodes are the servers whose key spaces make up this Redis.
func (c *Cache) nodes(ctx context.Context) ([]redis.Cmdable, error) {
	cluster, ok := c.client.(*redis.ClusterClient)
	if !ok {
		return []redis.Cmdable{c.client}, nil
	}
	var mu sync.Mutex
	var nodes []redis.Cmdable
	err := cluster.ForEachMaster(ctx, func(_ context.Context, node *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		nodes = append(nodes, node)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find the nodes of the cluster: %w", err)
	}
	return nodes, nil
}

// belonging tells the keys of entries from names that no entry can have.
func (c *Cache) belonging(names []string) (keys []counter.Key, strays []string) {
	for _, name := range names {
		_, rest, _ := strings.Cut(name, "}:c:")
		key, err := counter.ParseKey(rest)
		if err != nil || c.entryKey(key) != name {
			strays = append(strays, name)
			continue
		}
		keys = append(keys, key)
	}
	return keys, strays
}

// KeyCount is how many keys this Redis has, entries and others.
func (c *Cache) KeyCount(ctx context.Context) (int64, error) {
	n, err := c.client.DBSize(ctx).Result()
	if err != nil {
		return 0, fmt.Errorf("count the keys of redis: %w", err)
	}
	return n, nil
}

// EachMark calls page with the dirty keys of the shard, some hundred at a time, dead ones included. What EachEntry says of
// entries that come or go holds for them as well.
func (c *Cache) EachMark(ctx context.Context, shard counter.Shard, page func(keys []counter.Key) error) error {
	for cursor := uint64(0); ; {
		found, next, err := c.client.ZScan(ctx, dirtyKey(shard), cursor, "", ScanPage).Result()
		if err != nil {
			return fmt.Errorf("scan the dirty keys of shard %s: %w", shard, err)
		}
		keys := make([]counter.Key, 0, len(found)/2)
		for i := 0; i+1 < len(found); i += 2 {
			keys = append(keys, counter.Key(found[i]))
		}
		for part := range slices.Chunk(keys, ScanPage) {
			if err := page(part); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// Seen is an entry, dirty or clean, as Look saw it.
type Seen struct {
	Entry

	Dirty bool // also when it waits for a retry, or is dead
	Dead  bool
}

// Look reads entries as they are, up to ScanPage of them, one for each key in their order, in one atomic call (on a cluster,
// one for each shard).
func (c *Cache) Look(ctx context.Context, keys []counter.Key) ([]Seen, error) {
	if !c.cluster || len(keys) == 0 {
		return c.look(ctx, keys)
	}
	at := make(map[counter.Shard][]int)
	for i, key := range keys {
		at[c.Shard(key)] = append(at[c.Shard(key)], i)
	}
	out := make([]Seen, len(keys))
	for _, places := range at {
		part := make([]counter.Key, len(places))
		for i, place := range places {
			part[i] = keys[place]
		}
		seen, err := c.look(ctx, part)
		if err != nil {
			return nil, err
		}
		for i, place := range places {
			out[place] = seen[i]
		}
	}
	return out, nil
}

// lookFields is how many strings the reply of look.lua has for each entry.
const lookFields = entryFields + 1

func (c *Cache) look(ctx context.Context, keys []counter.Key) ([]Seen, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	names := make([]string, len(keys), len(keys)+shardKeys)
	for i, key := range keys {
		names[i] = c.entryKey(key)
	}
	if c.cluster {
		names = append(names, dirtyKey(c.Shard(keys[0])), deadKey(c.Shard(keys[0])))
	}
	reply, err := lookScript.Run(ctx, c.client, names, len(keys)).StringSlice()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("look at %d entries: %w", len(keys), err)
	}
	if len(reply) != lookFields*len(keys) {
		return nil, fmt.Errorf("look at %d entries: a reply of %d strings", len(keys), len(reply))
	}
	seen := make([]Seen, len(keys))
	for i := range seen {
		f := reply[i*lookFields : (i+1)*lookFields]
		e, err := decodeEntry(f[0], f[1], f[2])
		if err != nil {
			return nil, fmt.Errorf("look at %q: %w", f[0], err)
		}
		seen[i] = Seen{Entry: e, Dirty: e.DirtySince != 0, Dead: f[entryFields] == "1"}
	}
	return seen, nil
}

// Mending is what Mend does to an entry.
type Mending string

// What Mend can do.
const (
	MarkAgain Mending = "mark" // makes it dirty, so that a flush brings it to Postgres
	DropStale Mending = "drop" // removes it, so that the next to need it reads Postgres
)

// Mend changes those of entries, all of one shard and up to ScanPage of them, that are still as seen and clean, in one atomic
// step, and says which it has changed. It may be done twice.
func (c *Cache) Mend(ctx context.Context, shard counter.Shard, how Mending, entries []Seen) ([]bool, error) {
	if len(entries) == 0 {
		return nil, nil
	}
	names := []string{dirtyKey(shard), genKey(shard)}
	args := []any{string(how)}
	for _, e := range entries {
		flags := ""
		if e.Deleted {
			flags = "x"
		}
		if e.BaseUnknown {
			flags += "u"
		}
		names = append(names, c.entryKey(e.Key))
		args = append(args, strconv.FormatInt(e.Value, 10), strconv.FormatInt(e.Version, 10), flags, e.Life)
	}
	reply, err := mendScript.Run(ctx, c.client, names, args...).Text()
	if err == nil && len(reply) != len(entries) {
		err = fmt.Errorf("redis answered for %d", len(reply))
	}
	if err != nil {
		return nil, fmt.Errorf("mend %d entries of shard %s: %w", len(entries), shard, err)
	}
	done := make([]bool, len(entries))
	for i := range done {
		done[i] = reply[i] == 'y'
	}
	return done, nil
}
