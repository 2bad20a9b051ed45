package cache

import (
	"context"
	"fmt"
	"time"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Eviction selects the entries that EvictIdle removes.
type Eviction struct {
	Idle   time.Duration // clean entries whose last write is at least this old
	Urgent bool          // also entries not written since they were hydrated; otherwise they expire by their TTL

	// Pace is called before each page of up to ScanPage keys; its error ends the eviction.
	Pace func(ctx context.Context, keys int) error
}

// EvictIdle visits all entries once and removes the clean ones that e selects. It returns the number of removed entries, even with an
// error. It makes a few bounded calls for each page.
func (c *Cache) EvictIdle(ctx context.Context, e Eviction) (removed int64, err error) {
	now, err := c.Now(ctx)
	if err != nil {
		return 0, err
	}
	horizon := (now - e.Idle.Milliseconds()) * 1000
	err = c.EachEntry(ctx, func(keys []counter.Key, _ []string) error {
		if err := e.Pace(ctx, len(keys)); err != nil {
			return err
		}
		for shard, part := range c.byShard(keys) {
			n, err := c.evict(ctx, shard, part, horizon, e.Urgent)
			removed += n
			if err != nil {
				return err
			}
		}
		return nil
	})
	return removed, err
}

func (c *Cache) byShard(keys []counter.Key) map[counter.Shard][]counter.Key {
	shards := make(map[counter.Shard][]counter.Key)
	for _, key := range keys {
		shard := c.Shard(key)
		shards[shard] = append(shards[shard], key)
	}
	return shards
}

func (c *Cache) evict(ctx context.Context, shard counter.Shard, keys []counter.Key, horizon int64, urgent bool) (int64, error) {
	snapshot, err := c.Read(ctx, shard, keys)
	if err != nil {
		return 0, err
	}
	names, args := []string{c.metaKey(shard)}, []any{}
	for i := range snapshot.Entries {
		e := &snapshot.Entries[i]
		expires := e.Epoch == 0 && !urgent                                                          // it was never written, so it has a TTL
		if e.Missing || e.Corrupt || expires || e.Dirty(snapshot.Watermark) || e.Epoch >= horizon { // step: dirty
			continue
		}
		names, args = append(names, c.entryKey(e.Key)), append(args, e.text)
	}
	if len(args) == 0 {
		return 0, nil
	}
	n, err := evictScript.Run(ctx, c.client, names, args...).Int64()
	if err != nil {
		return 0, fmt.Errorf("evict %d entries of shard %s: %w", len(args), shard, err)
	}
	return n, nil
}
