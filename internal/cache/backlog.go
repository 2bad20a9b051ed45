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

// Backlog is how much Postgres is behind.
type Backlog struct {
	Dirty  int64         // keys that Postgres does not have in their newest state, without the dead ones
	Dead   int64         // keys that Postgres refused for good
	Oldest time.Duration // since the first unsynced write of all dirty keys that are not dead or waiting for a retry

	Uncounted int // shards that could not be asked, and are in none of the above
}

// Backlog counts all shards, in one round trip (on a cluster, one to each node): 3 commands of constant or logarithmic
// time for each shard. Where some cannot be asked it returns an error and what the others have.
func (c *Cache) Backlog(ctx context.Context) (Backlog, error) {
	pipe := c.client.Pipeline()
	dirty := make([]*redis.IntCmd, c.shards)
	dead := make([]*redis.IntCmd, c.shards)
	oldest := make([]*redis.ZSliceCmd, c.shards)
	for i := range c.shards {
		s := counter.Shard(i)
		dirty[i] = pipe.ZCard(ctx, dirtyKey(s))
		dead[i] = pipe.HLen(ctx, deadKey(s))
		oldest[i] = pipe.ZRangeWithScores(ctx, dirtyKey(s), 0, 0)
	}
	clock := pipe.Time(ctx)
	_ = send(ctx, pipe) // each command has its own error
	now := time.Now()
	if clock.Err() == nil { // else the node of a cluster that was asked for it is away: our own clock is better than none
		now = clock.Val()
	}
	var b Backlog
	var err error
	for i := range c.shards {
		if failed := cmp.Or(dirty[i].Err(), dead[i].Err(), oldest[i].Err()); failed != nil {
			err = fmt.Errorf("count dirty keys: %w", failed)
			b.Uncounted++
			continue
		}
		b.Dirty += dirty[i].Val() - dead[i].Val()
		b.Dead += dead[i].Val()
		if first := oldest[i].Val(); len(first) > 0 {
			b.Oldest = max(b.Oldest, time.Duration(now.UnixMilli()-int64(first[0].Score))*time.Millisecond)
		}
	}
	return b, err
}

// DirtyCount counts the keys that are dirty or dead, in one round trip of one command for each shard. A shard that cannot be asked
// counts as 0, unless none can: then it is an error. Else the limit that goes by it would stand still while one node of a
// cluster is away.
func (c *Cache) DirtyCount(ctx context.Context) (int64, error) {
	pipe := c.client.Pipeline()
	counts := make([]*redis.IntCmd, c.shards)
	for i := range c.shards {
		counts[i] = pipe.ZCard(ctx, dirtyKey(counter.Shard(i)))
	}
	err := send(ctx, pipe) // the first of the commands' errors
	var sum int64
	failed := 0
	for _, n := range counts {
		if n.Err() != nil {
			failed++
			continue
		}
		sum += n.Val()
	}
	if failed == c.shards {
		return 0, fmt.Errorf("count dirty keys: %w", err)
	}
	return sum, nil
}

// DirtyFor counts, for each shard, the keys that have been dirty for at least age and are due: neither dead nor waiting
// for a retry. A shard that is being drained at the moment counts as 0, and so does one that cannot be asked, unless none
// can: then it is an error. In two round trips, since a count has to be told
// the time.
func (c *Cache) DirtyFor(ctx context.Context, age time.Duration) ([]int64, error) {
	now, err := c.Now(ctx)
	if err != nil {
		return nil, err
	}
	before := strconv.FormatInt(now-age.Milliseconds(), 10)
	beyond, dead := "("+strconv.FormatInt(now+maxParked.Milliseconds(), 10), "("+strconv.FormatInt(deadScore, 10)
	pipe := c.client.Pipeline()
	counts := make([]*redis.IntCmd, c.shards)
	ahead := make([]*redis.IntCmd, c.shards)
	drains := make([]*redis.IntCmd, c.shards)
	for i := range c.shards {
		counts[i] = pipe.ZCount(ctx, dirtyKey(counter.Shard(i)), "-inf", before)
		// Dirty by a clock that was ahead, as in peek.lua.
		ahead[i] = pipe.ZCount(ctx, dirtyKey(counter.Shard(i)), beyond, dead)
		drains[i] = pipe.Exists(ctx, drainKey(counter.Shard(i)))
	}
	_ = send(ctx, pipe) // each command has its own error
	out := make([]int64, c.shards)
	failed := 0
	for i, n := range counts {
		switch {
		case n.Err() != nil:
			err = n.Err() // of one node of a cluster, or of one shard: it says nothing about the others
			failed++
		case drains[i].Val() == 0:
			out[i] = n.Val() + ahead[i].Val()
		}
	}
	if failed == c.shards {
		return nil, fmt.Errorf("count dirty keys: %w", err)
	}
	return out, nil
}

// maxParked is longer than any key is put aside for.
const maxParked = 3 * time.Hour

// Due returns up to limit keys of the shard that a drain would find now, the oldest first. In one round trip (on a
// cluster, one to each of two nodes at once).
func (c *Cache) Due(ctx context.Context, shard counter.Shard, limit int) ([]counter.Key, error) {
	if limit <= 0 {
		return nil, nil
	}
	pipe := c.client.Pipeline()
	clock := pipe.Time(ctx)
	// Those that wait for a retry or are dead have later times than all others, so none of these pushes a due one out.
	oldest := pipe.ZRangeWithScores(ctx, dirtyKey(shard), 0, int64(limit)-1)
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("list due keys of shard %s: %w", shard, err)
	}
	now := float64(clock.Val().UnixMilli())
	found := oldest.Val()
	keys := make([]counter.Key, 0, len(found))
	for _, z := range found {
		if z.Score > now {
			break
		}
		key, ok := z.Member.(string)
		if !ok {
			return nil, fmt.Errorf("list due keys of shard %s: a member is a %T", shard, z.Member)
		}
		keys = append(keys, counter.Key(key))
	}
	return keys, nil
}
