package cache

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Backlog is how much Postgres is behind.
type Backlog struct {
	// Dirty is how many keys Postgres does not have in their newest state, without the dead ones. One that was written again
	// while its shard is being flushed is counted twice for that time.
	Dirty  int64
	Dead   int64         // keys that Postgres refused for good
	Oldest time.Duration // since the first write of the oldest epoch that is not flushed

	Uncounted int // shards that could not be asked, and are in none of the above
}

// ShardBacklog is the Backlog of one shard.
type ShardBacklog struct {
	Backlog

	Retrying int64 // of the dirty keys: those that Postgres refused, or whose rows were locked, and that wait for their next attempt
	Unknown  bool  // the node of the cluster that has it does not answer; all else is 0

	state shardState
}

// shardState is what Redis says of a shard's epochs.
type shardState struct {
	shardMeta

	inOpen, inSealed int64 // keys
	due              int64 // keys that were set aside and whose time has come
	taken            bool  // somebody flushes it

	ahead time.Duration // how far in the future its oldest epoch began, since Redis's clock has been set back
}

// shardCounts are the commands about one shard that has something to count.
type shardCounts struct {
	opened, sealed, retry, dead, due, taken *redis.IntCmd

	meta *redis.StringCmd
}

// countShard asks for a shard, and what is due at a time, ms.
func (c *Cache) countShard(ctx context.Context, pipe redis.Pipeliner, s counter.Shard, at int64) *shardCounts {
	return &shardCounts{
		opened: pipe.SCard(ctx, c.openKey(s)),
		sealed: pipe.SCard(ctx, c.sealedKey(s)),
		retry:  pipe.ZCard(ctx, c.retryKey(s)),
		dead:   pipe.HLen(ctx, c.deadKey(s)),
		due:    pipe.ZCount(ctx, c.retryKey(s), "-inf", itoa(at)),
		taken:  pipe.Exists(ctx, c.drainKey(s)),
		meta:   pipe.Get(ctx, c.metaKey(s)), // last: what has left its epoch or its retry since it was counted is in here
	}
}

// read returns the shard's meta, if all has been answered.
func (n *shardCounts) read() (shardMeta, error) {
	meta, err := metaOf(n.meta)
	return meta, cmp.Or(n.opened.Err(), n.sealed.Err(), n.retry.Err(), n.dead.Err(), n.due.Err(), n.taken.Err(), err)
}

// fill adds what has been counted.
func (b *ShardBacklog) fill(n *shardCounts, meta shardMeta, now int64) {
	b.state.shardMeta = meta
	b.state.inOpen, b.state.inSealed = n.opened.Val(), n.sealed.Val()
	b.state.due, b.state.taken = n.due.Val(), n.taken.Val() > 0
	b.Retrying, b.Dead = n.retry.Val(), n.dead.Val()
	b.Dirty = b.state.inOpen + b.state.inSealed + b.Retrying
	if oldest := b.state.oldest(); oldest > 0 {
		b.Oldest = max(0, time.Duration(now-oldest)*time.Millisecond)
		b.state.ahead = max(0, time.Duration(oldest-now)*time.Millisecond)
	}
}

// oldest is when the first key of the oldest epoch was written, ms; 0: there is none.
func (s *shardState) oldest() int64 {
	switch {
	case s.sealed > 0 && s.sealedSince > 0: // all of its keys may have been dropped: it is still to be committed
		return s.sealedSince
	case s.inOpen > 0:
		return s.since
	}
	return 0
}

// Backlog counts all shards, in two round trips (on a cluster, one to each node): a few commands, and seven of constant or logarithmic
// time for each shard that has something to count. Where some cannot be asked it returns an error and what the others have.
func (c *Cache) Backlog(ctx context.Context) (Backlog, error) {
	shards, err := c.backlogs(ctx)
	var sum Backlog
	for i := range shards {
		b := &shards[i]
		if b.Unknown {
			sum.Uncounted++
			continue
		}
		sum.Dirty += b.Dirty
		sum.Dead += b.Dead
		sum.Oldest = max(sum.Oldest, b.Oldest)
	}
	return sum, err
}

// BacklogByShard counts each shard, as Backlog does. Shards that cannot be asked are Unknown; if none can, it is an error.
func (c *Cache) BacklogByShard(ctx context.Context) ([]ShardBacklog, error) {
	shards, err := c.backlogs(ctx)
	for i := range shards {
		if !shards[i].Unknown {
			return shards, nil
		}
	}
	return nil, err
}

// DirtyCount counts the keys that are dirty or dead. A shard that cannot be asked counts as 0, unless none can: then it is an
// error. Else the limit that goes by it would stand still while one node of a cluster is away.
func (c *Cache) DirtyCount(ctx context.Context) (int64, error) {
	sum, err := c.Backlog(ctx)
	if sum.Uncounted == c.shards {
		return 0, err
	}
	return sum.Dirty + sum.Dead, nil
}

// backlogs counts each shard. With an error, it is that of a node which says why it does not serve, where there is one.
func (c *Cache) backlogs(ctx context.Context) ([]ShardBacklog, error) {
	counts, now, err := c.countShards(ctx)
	out := make([]ShardBacklog, c.shards)
	var failed, denied error
	for i := range out {
		e := err
		if e == nil && counts[i] != nil {
			var meta shardMeta
			if meta, e = counts[i].read(); e == nil {
				out[i].fill(counts[i], meta, now)
			}
		}
		if e != nil {
			out[i] = ShardBacklog{Unknown: true}
			failed = cmp.Or(failed, e)
			if Denial(e) != "" {
				denied = cmp.Or(denied, e)
			}
		}
	}
	if failed != nil {
		return out, fmt.Errorf("count dirty keys: %w", cmp.Or(denied, failed))
	}
	return out, nil
}

// countShards asks for each shard that has something to count, nil for the others, and for the time, ms. On a cluster it asks for
// all of them at once: a node that hangs would leave no time to ask the others for more.
func (c *Cache) countShards(ctx context.Context) (counts []*shardCounts, now int64, err error) {
	counts = make([]*shardCounts, c.shards)
	pipe := c.client.Pipeline()
	if c.cluster {
		now = time.Now().UnixMilli()
		clock := pipe.Time(ctx)
		for i := range counts {
			counts[i] = c.countShard(ctx, pipe, counter.Shard(i), now)
		}
		_ = send(ctx, pipe)     // each command has its own error
		if clock.Err() == nil { // else the node that was asked for it is away: our own clock is better than none
			now = clock.Val().UnixMilli()
		}
		return counts, now, nil
	}
	busy, now, err := c.overview(ctx)
	if err != nil {
		return nil, 0, err
	}
	for i := range counts {
		if busy[i] {
			counts[i] = c.countShard(ctx, pipe, counter.Shard(i), now)
		}
	}
	if pipe.Len() > 0 {
		_ = send(ctx, pipe) // each command has its own error
	}
	return counts, now, nil
}

// overview tells which shards have something to count, and the time, ms: three commands in one round trip.
func (c *Cache) overview(ctx context.Context) (busy []bool, now int64, err error) {
	names, asideNames := make([]string, c.shards), make([]string, 0, 2*c.shards)
	for i := range names {
		s := counter.Shard(i)
		names[i] = c.metaKey(s)
		asideNames = append(asideNames, c.retryKey(s), c.deadKey(s))
	}
	pipe := c.client.Pipeline()
	clock, metas, aside := pipe.Time(ctx), pipe.MGet(ctx, names...), pipe.Exists(ctx, asideNames...)
	if err := send(ctx, pipe); err != nil {
		return nil, 0, err
	}
	busy = make([]bool, c.shards)
	for i, text := range metas.Val() {
		meta, err := decodeMeta(text)
		busy[i] = err != nil || meta.since > 0 || meta.sealed > 0 || aside.Val() > 0
	}
	return busy, clock.Val().UnixMilli(), nil
}

// Overdue returns the shards whose oldest epoch has been waiting for at least age, or of which keys that were set aside are due.
// A shard that is being flushed is not among them, nor one that cannot be asked, unless none can: then it is an error.
func (c *Cache) Overdue(ctx context.Context, age time.Duration) ([]counter.Shard, error) {
	shards, err := c.backlogs(ctx)
	var overdue []counter.Shard
	unknown := 0
	for i := range shards {
		b := &shards[i]
		switch {
		case b.Unknown:
			unknown++
		case b.state.taken:
		case b.state.due > 0, b.state.oldest() > 0 && max(b.Oldest, b.state.ahead) >= age:
			overdue = append(overdue, counter.Shard(i))
		}
	}
	if unknown == c.shards {
		return nil, err
	}
	return overdue, nil
}
