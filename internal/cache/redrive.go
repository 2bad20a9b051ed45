package cache

import (
	"context"
	_ "embed"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

var (
	//go:embed redrive.lua
	redriveSource string
	redriveScript = redis.NewScript(redriveSource)
)

// Redrive makes those of keys, all of one shard, that are dead due for a flush now, and returns them. Keys that are not
// dead are left alone, so it may be done twice. All of them are done or none. Redis does nothing else meanwhile: give it
// some hundred keys at most. It sends no task: a sweep would find the keys, but a drain finds them sooner.
func (c *Cache) Redrive(ctx context.Context, shard counter.Shard, keys []counter.Key) ([]counter.Key, error) {
	args := make([]any, len(keys))
	for i, k := range keys {
		args[i] = string(k)
	}
	reply, err := redriveScript.Run(ctx, c.client, []string{dirtyKey(shard)}, args...).StringSlice()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("redrive %d keys of shard %s: %w", len(keys), shard, err)
	}
	redriven := make([]counter.Key, len(reply))
	for i, k := range reply {
		redriven[i] = counter.Key(k)
	}
	return redriven, nil
}
