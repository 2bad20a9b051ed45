package cache

import (
	"context"
	_ "embed"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

var (
	//go:embed unpark.lua
	unparkSource string
	unparkScript = redis.NewScript(unparkSource)
)

// maxUnpark is how many keys one call takes: Redis does nothing else meanwhile.
const maxUnpark = 500

// Unpark makes those of keys that wait for another try due now. Others, dead ones too, are left alone, so it may be done twice.
// It sends no task, and leaves the retries that are there. It blocks for one bounded call for each 500 keys of a shard.
func (c *Cache) Unpark(ctx context.Context, keys []counter.Key) error {
	byShard := make(map[counter.Shard][]any)
	for _, key := range keys {
		byShard[c.Shard(key)] = append(byShard[c.Shard(key)], string(key))
	}
	for shard, args := range byShard {
		for part := range slices.Chunk(args, maxUnpark) {
			if err := unparkScript.Run(ctx, c.client, []string{dirtyKey(shard)}, part...).Err(); err != nil {
				return fmt.Errorf("unpark %d keys of shard %s: %w", len(part), shard, err)
			}
		}
	}
	return nil
}
