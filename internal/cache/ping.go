package cache

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Ping returns nil if Redis serves counters. On a cluster one working master is enough: the failure of others is no reason to refuse all
// writes. It reads a key, because a Redis that loads its data still answers INFO, and a cluster that is down still answers PING. It sends
// one command of constant time (on a cluster, to each master at once), and blocks until ctx ends, for 3 s at most.
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
			return nil // without waiting for masters that hang
		}
	}
	return err
}

// ask reads a key of the shard. Its content does not matter: one corrupt shard must not stop the others.
func (c *Cache) ask(ctx context.Context, s counter.Shard) error {
	if err := c.client.Exists(ctx, c.metaKey(s)).Err(); err != nil {
		return fmt.Errorf("read a key from redis: %w", err)
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
			return nil, fmt.Errorf("read redis's masters: %w", err)
		}
		if !seen[master] {
			seen[master] = true
			shards = append(shards, s)
		}
	}
	return shards, nil
}
