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

// ScanPage bounds the keys of one page. One SCAN visits about as many keys, and blocks Redis meanwhile.
const ScanPage = 500

// EachEntry calls page with the keys of all entries, up to ScanPage at a time, in no order. strays are Redis keys that look like entries,
// but that no counter can have. It may miss entries that are created or removed meanwhile, and may return others twice while Redis resizes
// its table. If page returns an error, EachEntry stops and returns it unchanged.
//
// It scans the key space of each node once, not once for each shard: SCAN visits every key, whatever the pattern. Each call to Redis is
// bounded.
func (c *Cache) EachEntry(ctx context.Context, page func(keys []counter.Key, strays []string) error) error {
	var mu sync.Mutex
	var nodes []redis.Cmdable
	err := eachMaster(ctx, c.client, func(_ context.Context, node redis.Cmdable) error {
		mu.Lock()
		defer mu.Unlock()
		nodes = append(nodes, node)
		return nil
	})
	if err != nil {
		return fmt.Errorf("find the nodes of the cluster: %w", err)
	}
	for _, node := range nodes {
		err := eachPage("the entries", func(cursor uint64) ([]string, uint64, error) {
			return node.Scan(ctx, cursor, c.tagPrefix()+"*}:c:*", ScanPage).Result()
		}, func(names []string) error { return page(c.belonging(names)) })
		if err != nil {
			return err
		}
	}
	return nil
}

// eachPage calls page with what scan finds, up to ScanPage at a time, until the cursor is back at 0. what names the keys in scan's error.
func eachPage(what string, scan func(cursor uint64) ([]string, uint64, error), page func([]string) error) error {
	for cursor := uint64(0); ; {
		found, next, err := scan(cursor)
		if err != nil {
			return fmt.Errorf("scan %s: %w", what, err)
		}
		for part := range slices.Chunk(found, ScanPage) {
			if err := page(part); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// belonging separates the keys of entries from names that no entry can have.
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

// KeyCount returns the number of keys in this Redis, entries or not.
func (c *Cache) KeyCount(ctx context.Context) (int64, error) {
	n, err := c.client.DBSize(ctx).Result()
	if err != nil {
		return 0, fmt.Errorf("count the keys of redis: %w", err)
	}
	return n, nil
}

// EachMember calls page with the keys of the shard that are in its open or its sealed epoch, or set aside, up to ScanPage at a time. It may
// miss keys that move meanwhile, and may return a key more than once.
func (c *Cache) EachMember(ctx context.Context, shard counter.Shard, page func(keys []counter.Key) error) error {
	names := func(pairs []string, next uint64, err error) ([]string, uint64, error) {
		var names []string
		for i := 0; i+1 < len(pairs); i += 2 {
			names = append(names, pairs[i])
		}
		return names, next, err
	}
	for _, scan := range []func(at uint64) ([]string, uint64, error){
		func(at uint64) ([]string, uint64, error) {
			return c.client.SScan(ctx, c.openKey(shard), at, "", ScanPage).Result()
		},
		func(at uint64) ([]string, uint64, error) {
			return c.client.SScan(ctx, c.sealedKey(shard), at, "", ScanPage).Result()
		},
		func(at uint64) ([]string, uint64, error) {
			return names(c.client.ZScan(ctx, c.retryKey(shard), at, "", ScanPage).Result())
		},
		func(at uint64) ([]string, uint64, error) {
			return names(c.client.HScan(ctx, c.deadKey(shard), at, "", ScanPage).Result())
		},
	} {
		err := eachPage("the dirty keys of shard "+shard.String(), scan, func(found []string) error { return page(keysOf(found)) })
		if err != nil {
			return err
		}
	}
	return nil
}
