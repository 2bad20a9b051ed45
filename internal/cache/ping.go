package cache

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Ping returns nil if Redis serves counters. On a cluster one master is enough: the others are no reason to refuse all writes. It asks
// for a key, because a Redis that loads its data answers INFO, and a cluster that is down answers PING. One command of constant time, on
// a cluster one to each master at once. It blocks until ctx ends, at most for 3 s.
func (c *Cache) Ping(ctx context.Context) error {
	cluster, ok := c.client.(*redis.ClusterClient)
	if !ok {
		return c.ask(ctx, 0)
	}
	shards, err := c.ofEachMaster(ctx, cluster)
	if err != nil {
		return err
	}
	answers := make(chan error, len(shards))
	for _, s := range shards {
		go func() { answers <- c.ask(ctx, s) }()
	}
	for range shards {
		if err = <-answers; err == nil {
			return nil // it does not wait for those that hang
		}
	}
	return err
}

// ask asks for a key of the shard, whatever it holds: one corrupt shard is no reason to serve none.
func (c *Cache) ask(ctx context.Context, s counter.Shard) error {
	if err := c.client.Exists(ctx, c.metaKey(s)).Err(); err != nil {
		return fmt.Errorf("ask redis for a key: %w", err)
	}
	return nil
}

// ofEachMaster returns one shard of each master that has shards.
func (c *Cache) ofEachMaster(ctx context.Context, cluster *redis.ClusterClient) ([]counter.Shard, error) {
	seen := make(map[*redis.Client]bool)
	var shards []counter.Shard
	for i := range c.shards {
		s := counter.Shard(i)
		master, err := cluster.MasterForKey(ctx, c.metaKey(s))
		if err != nil {
			return nil, fmt.Errorf("ask redis for its masters: %w", err)
		}
		if !seen[master] {
			seen[master] = true
			shards = append(shards, s)
		}
	}
	return shards, nil
}
