package cache

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// ShardBacklog is the Backlog of one shard.
type ShardBacklog struct {
	Backlog

	Retrying int64 // of the dirty keys: those that Postgres refused, and that wait for their next attempt
}

// retrySlack is what a retry must be ahead of us to be counted as one: keys that became dirty after the time was asked for are
// ahead of it too, by less.
const retrySlack = 500 * time.Millisecond

// BacklogByShard counts each shard. now is the time by Redis's clock, in ms (see Now). In one round trip (on a cluster, one
// to each node): 4 commands of constant or logarithmic time for each shard.
func (c *Cache) BacklogByShard(ctx context.Context, now int64) ([]ShardBacklog, error) {
	pipe := c.client.Pipeline()
	dirty := make([]*redis.IntCmd, c.shards)
	dead := make([]*redis.IntCmd, c.shards)
	later := make([]*redis.IntCmd, c.shards)
	oldest := make([]*redis.ZSliceCmd, c.shards)
	after, before := "("+strconv.FormatInt(now+retrySlack.Milliseconds(), 10), "("+strconv.FormatInt(deadScore, 10)
	for i := range c.shards {
		s := counter.Shard(i)
		dirty[i] = pipe.ZCard(ctx, dirtyKey(s))
		dead[i] = pipe.HLen(ctx, deadKey(s))
		later[i] = pipe.ZCount(ctx, dirtyKey(s), after, before)
		oldest[i] = pipe.ZRangeWithScores(ctx, dirtyKey(s), 0, 0)
	}
	clock := pipe.Time(ctx)
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("count dirty keys by shard: %w", err)
	}
	now = clock.Val().UnixMilli()
	out := make([]ShardBacklog, c.shards)
	for i := range out {
		b := &out[i]
		b.Dirty, b.Dead = dirty[i].Val()-dead[i].Val(), dead[i].Val()
		b.Retrying = later[i].Val()
		if first := oldest[i].Val(); len(first) > 0 {
			b.Oldest = max(0, time.Duration(now-int64(first[0].Score))*time.Millisecond)
		}
	}
	return out, nil
}
