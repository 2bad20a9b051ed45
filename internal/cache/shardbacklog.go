package cache

import (
	"cmp"
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
	Unknown  bool  // the node of the cluster that has it does not answer; all else is 0
}

// retrySlack is what a retry must be ahead of us to be counted as one: keys that became dirty after the time was asked for are
// ahead of it too, by less.
const retrySlack = 500 * time.Millisecond

// BacklogByShard counts each shard. now is the time by Redis's clock, in ms (see Now). In one round trip (on a cluster, one
// to each node): 4 commands of constant or logarithmic time for each shard. Shards that cannot be asked are Unknown; if none
// can, it is an error.
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
	err := send(ctx, pipe) // which is that of one command; each has its own
	var denied error       // that of a node which says why it does not serve
	if clock.Err() == nil {
		now = clock.Val().UnixMilli()
	}
	out := make([]ShardBacklog, c.shards)
	unknown := 0
	for i := range out {
		b := &out[i]
		if e := cmp.Or(dirty[i].Err(), dead[i].Err(), later[i].Err(), oldest[i].Err()); e != nil {
			b.Unknown = true
			if denied == nil && Denial(e) != "" {
				denied = e
			}
			unknown++
			continue
		}
		b.Dirty, b.Dead = dirty[i].Val()-dead[i].Val(), dead[i].Val()
		b.Retrying = later[i].Val()
		if first := oldest[i].Val(); len(first) > 0 {
			b.Oldest = max(0, time.Duration(now-int64(first[0].Score))*time.Millisecond)
		}
	}
	if unknown == c.shards {
		return nil, fmt.Errorf("count dirty keys by shard: %w", cmp.Or(denied, err))
	}
	return out, nil
}
