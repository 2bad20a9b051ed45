package cache

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
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
			found, next, err := node.Scan(ctx, cursor, c.tagPrefix()+"*}:c:*", ScanPage).Result()
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

// EachMember calls page with the keys of the shard that are in its open or its sealed epoch, or set aside, some hundred at a
// time. What EachEntry says of entries that come or go holds for them as well; a key may be in more than once.
func (c *Cache) EachMember(ctx context.Context, shard counter.Shard, page func(keys []counter.Key) error) error {
	type scan func(cursor uint64) (found []string, next uint64, err error)
	pairs := func(found []string, next uint64, err error) ([]string, uint64, error) {
		var keys []string
		for i := 0; i+1 < len(found); i += 2 {
			keys = append(keys, found[i])
		}
		return keys, next, err
	}
	for _, scan := range []scan{
		func(at uint64) ([]string, uint64, error) {
			return c.client.SScan(ctx, c.openKey(shard), at, "", ScanPage).Result()
		},
		func(at uint64) ([]string, uint64, error) {
			return c.client.SScan(ctx, c.sealedKey(shard), at, "", ScanPage).Result()
		},
		func(at uint64) ([]string, uint64, error) {
			return pairs(c.client.ZScan(ctx, c.retryKey(shard), at, "", ScanPage).Result())
		},
		func(at uint64) ([]string, uint64, error) {
			return pairs(c.client.HScan(ctx, c.deadKey(shard), at, "", ScanPage).Result())
		},
	} {
		for cursor := uint64(0); ; {
			found, next, err := scan(cursor)
			if err != nil {
				return fmt.Errorf("scan the dirty keys of shard %s: %w", shard, err)
			}
			for part := range slices.Chunk(found, ScanPage) {
				keys := make([]counter.Key, len(part))
				for i, key := range part {
					keys[i] = counter.Key(key)
				}
				if err := page(keys); err != nil {
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

// Inspected is an entry, dirty or clean, and where its key stands.
type Inspected struct {
	Entry

	Dirty    bool // also when it waits for a retry, or is dead
	Dead     bool
	RetryAt  int64 // when a flush may take up what was set aside, ms of Redis's clock; 0: it was not, or is dead
	Stranded bool  // it is dirty, but in no epoch, nor set aside: somebody removed it there by hand, and no flush finds it
}

// Inspect reads entries and where their keys stand, up to ScanPage of them, one for each key in their order. It blocks for two
// round trips for each of their shards, or a few more.
func (c *Cache) Inspect(ctx context.Context, keys []counter.Key) ([]Inspected, error) {
	at := make(map[counter.Shard][]int)
	for i, key := range keys {
		at[c.Shard(key)] = append(at[c.Shard(key)], i)
	}
	out := make([]Inspected, len(keys))
	for shard, places := range at {
		part := make([]counter.Key, len(places))
		for i, place := range places {
			part[i] = keys[place]
		}
		inspected, err := c.inspect(ctx, shard, part)
		if err != nil {
			return nil, err
		}
		for i, place := range places {
			out[place] = inspected[i]
		}
	}
	return out, nil
}

func (c *Cache) inspect(ctx context.Context, shard counter.Shard, keys []counter.Key) ([]Inspected, error) {
	snapshot, err := c.Read(ctx, shard, keys)
	if err != nil {
		return nil, err
	}
	members := make([]any, len(keys))
	for i, key := range keys {
		members[i] = string(key)
	}
	pipe := c.client.Pipeline()
	open := pipe.SMIsMember(ctx, c.openKey(shard), members...) // before sealed: that is where its keys go
	sealed := pipe.SMIsMember(ctx, c.sealedKey(shard), members...)
	retry := pipe.ZMScore(ctx, c.retryKey(shard), texts(keys)...)
	dead := pipe.HMGet(ctx, c.deadKey(shard), texts(keys)...)
	if err := send(ctx, pipe); err != nil {
		return nil, fmt.Errorf("look at %d keys of shard %s: %w", len(keys), shard, err)
	}
	out := make([]Inspected, len(keys))
	for i, e := range snapshot.Entries {
		in := Inspected{Entry: e, Dead: dead.Val()[i] != nil, RetryAt: int64(retry.Val()[i])}
		member := open.Val()[i] || sealed.Val()[i] || retry.Val()[i] != 0 || in.Dead
		in.Dirty = e.Dirty(snapshot.Watermark) || (member && (e.Missing || e.Corrupt))
		in.Stranded = in.Dirty && !member
		out[i] = in
	}
	return out, c.readStrandedAgain(ctx, shard, out)
}

// readStrandedAgain tells keys that left their epoch since they were read, because a flush was completed or they were written,
// from those that no flush finds: the latter have not changed.
func (c *Cache) readStrandedAgain(ctx context.Context, shard counter.Shard, inspected []Inspected) error {
	var keys []counter.Key
	var places []int
	for i := range inspected {
		if inspected[i].Stranded {
			keys, places = append(keys, inspected[i].Key), append(places, i)
		}
	}
	again, err := c.Read(ctx, shard, keys)
	if err != nil {
		return err
	}
	for i, place := range places {
		in, e := &inspected[place], again.Entries[i]
		dirty := e.Dirty(again.Watermark)
		in.Stranded = dirty && e.text == in.text
		in.Entry, in.Dirty = e, dirty
	}
	return nil
}

// Repairing is what Repair does to an entry.
type Repairing string

// What Repair can do.
const (
	MarkAgain Repairing = "mark" // puts it into the open epoch, so that a flush brings it to Postgres
	DropStale Repairing = "drop" // removes it, so that the next to need it reads Postgres
)

// maxRepair bounds one call of repair.lua.
const maxRepair = 200

// Repair changes those of entries, all of one shard, that are still as they were read, and says which it has changed: one atomic
// step for each 200. It may be done twice.
func (c *Cache) Repair(ctx context.Context, shard counter.Shard, how Repairing, entries []Inspected) ([]bool, error) {
	done := make([]bool, 0, len(entries))
	for part := range slices.Chunk(entries, maxRepair) {
		names, args := []string{c.metaKey(shard), c.openKey(shard), c.retryKey(shard), c.deadKey(shard)}, []any{string(how)}
		for i := range part {
			names, args = append(names, c.entryKey(part[i].Key)), append(args, string(part[i].Key), part[i].text)
		}
		reply, err := repairScript.Run(ctx, c.client, names, args...).Text()
		if err == nil && len(reply) != len(part) {
			err = fmt.Errorf("redis answered for %d", len(reply))
		}
		if err != nil {
			return nil, fmt.Errorf("repair %d entries of shard %s: %w", len(part), shard, err)
		}
		for _, letter := range []byte(reply) {
			done = append(done, letter == 'y')
		}
	}
	return done, nil
}
