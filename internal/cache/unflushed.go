package cache

import (
	"cmp"
	"context"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Unflushed is what Postgres does not have of what was written before some moment.
type Unflushed struct {
	Due      int64 // keys that a drain would flush now
	Retrying int64 // keys that wait for another try, because Postgres refused them or their row was locked
	Dead     int64 // keys that Postgres refused for good

	Shards []counter.Shard // that have due keys

	At int64 // when this was so, ms of Redis's clock
}

// deadScore is where park.lua puts dead keys.
const deadScore = 1 << 52

// Unflushed counts the keys that have been dirty since before the given time of Redis's clock, ms (0: now), in all shards: keys
// that were written again since it began are counted until all of what came before is in Postgres. One that waited for another
// try counts by when its time comes, so where some wait, ask with 0 the next time. In two round trips of 3 commands for each shard.
func (c *Cache) Unflushed(ctx context.Context, before int64) (Unflushed, error) {
	now, err := c.Now(ctx)
	if err != nil {
		return Unflushed{}, err
	}
	before = cmp.Or(before, now)
	pipe := c.client.Pipeline()
	due := make([]*redis.IntCmd, c.shards)
	later := make([]*redis.IntCmd, c.shards)
	dead := make([]*redis.IntCmd, c.shards)
	for i := range c.shards {
		s := counter.Shard(i)
		due[i] = pipe.ZCount(ctx, dirtyKey(s), "-inf", strconv.FormatInt(before, 10))
		later[i] = pipe.ZCount(ctx, dirtyKey(s), "("+strconv.FormatInt(now, 10), "("+strconv.FormatInt(deadScore, 10))
		dead[i] = pipe.HLen(ctx, deadKey(s))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return Unflushed{}, fmt.Errorf("count dirty keys: %w", err)
	}
	u := Unflushed{At: now}
	for i := range c.shards {
		u.add(counter.Shard(i), due[i].Val())
		u.Retrying += later[i].Val()
		u.Dead += dead[i].Val()
	}
	return u, nil
}

// UnflushedOf is Unflushed for the given keys only, in two round trips of one command for each of their shards.
func (c *Cache) UnflushedOf(ctx context.Context, keys []counter.Key, before int64) (Unflushed, error) {
	now, err := c.Now(ctx)
	if err != nil {
		return Unflushed{}, err
	}
	before = cmp.Or(before, now)
	members := make(map[counter.Shard][]string)
	for _, key := range keys {
		members[c.Shard(key)] = append(members[c.Shard(key)], string(key))
	}
	pipe := c.client.Pipeline()
	scores := make(map[counter.Shard]*redis.FloatSliceCmd, len(members))
	for shard, keys := range members {
		scores[shard] = pipe.ZMScore(ctx, dirtyKey(shard), keys...)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return Unflushed{}, fmt.Errorf("look at %d keys: %w", len(keys), err)
	}
	u := Unflushed{At: now}
	for shard, found := range scores {
		due := int64(0)
		for _, score := range found.Val() {
			switch {
			case score == 0: // not dirty: no score is 0, they are ms since 1970
			case score >= deadScore:
				u.Dead++
			case score > float64(now):
				u.Retrying++
			case score <= float64(before):
				due++
			}
		}
		u.add(shard, due)
	}
	return u, nil
}

func (u *Unflushed) add(shard counter.Shard, due int64) {
	if due > 0 {
		u.Due += due
		u.Shards = append(u.Shards, shard)
	}
}
