package convert

import (
	"context"
	"fmt"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// pass converts all keys once, and returns how many it converted. It begins with dirty and dead keys, whose entries may be missing.
func (c *converter) pass(ctx context.Context) (changed int, err error) {
	dirty, dead, err := c.unsynced(ctx)
	if err != nil {
		return 0, err
	}
	for _, shard := range dirty {
		n, err := c.dirtyKeys(ctx, shard)
		changed += n
		if err != nil {
			return changed, err
		}
	}
	for _, shard := range dead {
		n, err := c.deadKeys(ctx, shard)
		changed += n
		if err != nil {
			return changed, err
		}
	}
	err = c.eachNode(ctx, func(node redis.Cmdable) error {
		n, err := c.scan(ctx, node)
		changed += n
		return err
	})
	return changed, err
}

// unsynced returns the old shards that have dirty keys, and those that have dead ones.
func (c *converter) unsynced(ctx context.Context) (dirty, dead []counter.Shard, err error) {
	pipe := c.Redis.Pipeline()
	sets, hashes := make([]*redis.IntCmd, c.from), make([]*redis.IntCmd, c.from)
	for i := range c.from {
		sets[i], hashes[i] = pipe.ZCard(ctx, dirtyKey(counter.Shard(i))), pipe.HLen(ctx, deadKey(counter.Shard(i)))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, nil, fmt.Errorf("count the dirty keys of layout 2: %w", err)
	}
	for i := range c.from {
		if sets[i].Val() > 0 {
			dirty = append(dirty, counter.Shard(i))
		}
		if hashes[i].Val() > 0 {
			dead = append(dead, counter.Shard(i))
		}
	}
	return dirty, dead, nil
}

// dirtyKeys converts the dirty keys of an old shard. Each page removes its keys from the set.
func (c *converter) dirtyKeys(ctx context.Context, from counter.Shard) (changed int, err error) {
	for {
		members, err := c.Redis.ZRange(ctx, dirtyKey(from), 0, pageSize-1).Result()
		if err != nil {
			return changed, fmt.Errorf("list the dirty keys of shard %s: %w", from, err)
		}
		if len(members) == 0 {
			return changed, nil
		}
		n, err := c.moveAll(ctx, from, members)
		changed += n
		if err != nil {
			return changed, err
		}
		if n == 0 {
			return changed, fmt.Errorf("the dirty keys of shard %s change: %w", from, errStillWriting)
		}
	}
}

// deadKeys converts the dead keys of an old shard, except keys that are in the new shard of the same number.
func (c *converter) deadKeys(ctx context.Context, from counter.Shard) (changed int, err error) {
	for cursor := uint64(0); ; {
		fields, next, err := c.Redis.HScan(ctx, deadKey(from), cursor, "", pageSize).Result()
		if err != nil {
			return changed, fmt.Errorf("list the dead keys of shard %s: %w", from, err)
		}
		var keys []string
		for i := 0; i+1 < len(fields); i += 2 {
			if counter.Key(fields[i]).Shard(c.to) != from {
				keys = append(keys, fields[i])
			}
		}
		n, err := c.moveAll(ctx, from, keys)
		changed += n
		if err != nil {
			return changed, err
		}
		if cursor = next; cursor == 0 {
			return changed, nil
		}
	}
}

// moveAll converts keys of one old shard.
func (c *converter) moveAll(ctx context.Context, from counter.Shard, keys []string) (changed int, err error) {
	b := batches{converter: c, batches: make(map[pair]*batch)}
	for _, text := range keys {
		key := counter.Key(text)
		if err := b.add(ctx, name{shard: from, key: key}); err != nil {
			return b.changed, err
		}
	}
	return b.changed, b.flush(ctx)
}

// scan converts the entries and records that one server has.
func (c *converter) scan(ctx context.Context, node redis.Cmdable) (changed int, err error) {
	b := batches{converter: c, batches: make(map[pair]*batch)}
	for cursor := uint64(0); ; {
		found, next, err := node.Scan(ctx, cursor, "{aw:*", scanSize).Result()
		if err != nil {
			return b.changed, fmt.Errorf("scan the keys: %w", err)
		}
		for _, text := range found {
			// A key that is not in its shard of layout 2 is converted already, or not afterwrite's.
			n, ok := parseName(text)
			if !ok || n.key.Shard(c.from) != n.shard {
				continue
			}
			if err := b.add(ctx, n); err != nil {
				return b.changed, err
			}
		}
		if cursor = next; cursor == 0 {
			return b.changed, b.flush(ctx)
		}
	}
}

// batches collects names, and converts those of a pair of shards when they fill a page.
type batches struct {
	*converter

	batches map[pair]*batch
	changed int
}

// batch has the names of one pair of shards. They are sets, because SCAN may return a key twice.
type batch struct {
	entries map[counter.Key]bool
	records map[name]bool
}

func (b *batches) add(ctx context.Context, n name) error {
	p := pair{from: n.shard, to: n.key.Shard(b.to)}
	in := b.batches[p]
	if in == nil {
		in = &batch{entries: make(map[counter.Key]bool), records: make(map[name]bool)}
		b.batches[p] = in
	}
	if n.record {
		in.records[n] = true
	} else {
		in.entries[n.key] = true
	}
	if len(in.entries)+len(in.records) < pageSize {
		return nil
	}
	return b.convert(ctx, p)
}

// flush converts the names that are left.
func (b *batches) flush(ctx context.Context) error {
	for p := range b.batches {
		if err := b.convert(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func (b *batches) convert(ctx context.Context, p pair) error {
	in := b.batches[p]
	delete(b.batches, p)
	keys := make([]counter.Key, 0, len(in.entries))
	for key := range in.entries {
		keys = append(keys, key)
	}
	records := make([]name, 0, len(in.records))
	for n := range in.records {
		records = append(records, n)
	}
	if len(keys) > 0 {
		n, err := b.move(ctx, p, keys)
		b.changed, b.progress.Entries = b.changed+n, b.progress.Entries+int64(n)
		if err != nil {
			return err
		}
	}
	if len(records) > 0 {
		n, err := b.moveRecords(ctx, p, records)
		b.changed, b.progress.Records = b.changed+n, b.progress.Records+int64(n)
		if err != nil {
			return err
		}
	}
	b.report()
	return nil
}

// eachNode calls do for each master, one after the other.
func (c *converter) eachNode(ctx context.Context, do func(redis.Cmdable) error) error {
	cluster, ok := c.Redis.(*redis.ClusterClient)
	if !ok {
		return do(c.Redis)
	}
	var mu sync.Mutex
	err := cluster.ForEachMaster(ctx, func(_ context.Context, node *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		return do(node)
	})
	if err != nil {
		return fmt.Errorf("on a master of the cluster: %w", err)
	}
	return nil
}
