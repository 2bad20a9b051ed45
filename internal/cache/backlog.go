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
	openID, sealedID, watermark int64
	openSince, sealedSince      int64 // ms
	opened, sealed              int64 // keys
	due                         int64 // keys that were set aside and whose time has come
	taken                       bool  // somebody flushes it
}

// shardCounts are the commands of one shard.
type shardCounts struct {
	meta                        *redis.SliceCmd
	opened, sealed, retry, dead *redis.IntCmd

	due, taken *redis.IntCmd // nil: not asked for
}

// countShard asks for a shard, and with now, ms, also for what is due then and whether somebody flushes it.
func countShard(ctx context.Context, pipe redis.Pipeliner, s counter.Shard, now int64) shardCounts {
	n := shardCounts{
		meta:   pipe.HMGet(ctx, metaKey(s), "open", "sealed", "watermark", "open_since", "sealed_since"),
		opened: pipe.SCard(ctx, openKey(s)),
		sealed: pipe.SCard(ctx, sealedKey(s)),
		retry:  pipe.ZCard(ctx, retryKey(s)),
		dead:   pipe.HLen(ctx, deadKey(s)),
	}
	if now > 0 {
		n.due = pipe.ZCount(ctx, retryKey(s), "-inf", itoa(now))
		n.taken = pipe.Exists(ctx, drainKey(s))
	}
	return n
}

func (n *shardCounts) err() error {
	return cmp.Or(n.meta.Err(), n.opened.Err(), n.sealed.Err(), n.retry.Err(), n.dead.Err())
}

func (n *shardCounts) backlog(now int64) (ShardBacklog, error) {
	var f fields
	field := func(i int, base int) int64 {
		text, ok := n.meta.Val()[i].(string)
		if !ok {
			return 0
		}
		return f.number(text, base)
	}
	var b ShardBacklog
	b.state = shardState{
		openID: field(0, idBase), sealedID: field(1, idBase), watermark: field(2, idBase),
		openSince: field(3, decimal), sealedSince: field(4, decimal),
		opened: n.opened.Val(), sealed: n.sealed.Val(),
	}
	if n.due != nil {
		b.state.due, b.state.taken = n.due.Val(), n.taken.Val() > 0
	}
	b.Retrying, b.Dead = n.retry.Val(), n.dead.Val()
	b.Dirty = b.state.opened + b.state.sealed + b.Retrying
	if oldest := b.state.oldest(); oldest > 0 {
		b.Oldest = max(0, time.Duration(now-oldest)*time.Millisecond)
	}
	return b, f.err
}

// oldest is when the first key of the oldest epoch was written, ms; 0: there is none.
func (s *shardState) oldest() int64 {
	switch {
	case s.sealed > 0 && s.sealedSince > 0:
		return s.sealedSince
	case s.opened > 0:
		return s.openSince
	}
	return 0
}

// Backlog counts all shards, in one round trip (on a cluster, one to each node): 5 commands of constant time for each shard. Where
// some cannot be asked it returns an error and what the others have.
func (c *Cache) Backlog(ctx context.Context) (Backlog, error) {
	shards, err := c.backlogs(ctx, 0)
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
	shards, err := c.backlogs(ctx, 0)
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

// backlogs counts each shard, and with at, ms, what is due then. With an error, it is that of a node which says why it does
// not serve, where there is one.
func (c *Cache) backlogs(ctx context.Context, at int64) ([]ShardBacklog, error) {
	pipe := c.client.Pipeline()
	counts := make([]shardCounts, c.shards)
	for i := range counts {
		counts[i] = countShard(ctx, pipe, counter.Shard(i), at)
	}
	clock := pipe.Time(ctx)
	err := send(ctx, pipe) // which is that of one command; each has its own
	now := time.Now().UnixMilli()
	if clock.Err() == nil { // else the node of a cluster that was asked for it is away: our own clock is better than none
		now = clock.Val().UnixMilli()
	}
	out := make([]ShardBacklog, c.shards)
	var failed, denied error
	for i := range counts {
		e := counts[i].err()
		if e == nil {
			out[i], e = counts[i].backlog(now)
		}
		if e == nil {
			continue
		}
		out[i] = ShardBacklog{Unknown: true}
		failed = cmp.Or(failed, e)
		if Denial(e) != "" {
			denied = cmp.Or(denied, e)
		}
	}
	if failed != nil {
		return out, fmt.Errorf("count dirty keys: %w", cmp.Or(denied, failed, err))
	}
	return out, nil
}

// Overdue returns the shards whose oldest epoch has been waiting for at least age, or of which keys that were set aside are due.
// A shard that is being flushed is not among them, nor one that cannot be asked, unless none can: then it is an error.
func (c *Cache) Overdue(ctx context.Context, age time.Duration) ([]counter.Shard, error) {
	now, err := c.Now(ctx)
	if err != nil {
		return nil, err
	}
	shards, err := c.backlogs(ctx, now)
	var overdue []counter.Shard
	unknown := 0
	for i := range shards {
		b := &shards[i]
		switch {
		case b.Unknown:
			unknown++
		case b.state.taken:
		case b.state.due > 0, b.state.oldest() > 0 && b.Oldest >= age:
			overdue = append(overdue, counter.Shard(i))
		}
	}
	if unknown == c.shards {
		return nil, err
	}
	return overdue, nil
}

// Unflushed is what Postgres does not have of what was written before some moment.
type Unflushed struct {
	Due      int64 // keys that a drain would flush now
	Retrying int64 // keys that wait for another try, because Postgres refused them or their row was locked
	Dead     int64 // keys that Postgres refused for good

	Shards []counter.Shard // that have due keys

	At Moment // when this was so
}

// Moment is a moment in the life of each shard, for Unflushed: the epoch that was the last to have keys then, 0: none. nil is now.
type Moment []int64

// Unflushed counts the keys that have been dirty since before a moment, in all shards: what is written later does not count,
// unless it is counted with the others of its epoch. One that waited for another try joins a later epoch when its time comes, so
// where some wait, ask with nil the next time. In one round trip.
func (c *Cache) Unflushed(ctx context.Context, before Moment) (Unflushed, error) {
	shards, err := c.backlogs(ctx, 0)
	if err != nil {
		return Unflushed{}, err
	}
	u := Unflushed{At: make(Moment, len(shards))}
	for i := range shards {
		s := &shards[i].state
		u.At[i] = s.last()
		mark := u.At[i]
		if before != nil {
			mark = before[i]
		}
		u.add(counter.Shard(i), s.dueBefore(mark))
		u.Retrying += shards[i].Retrying
		u.Dead += shards[i].Dead
	}
	return u, nil
}

// last is the newest epoch that has keys, 0: none.
func (s *shardState) last() int64 {
	switch {
	case s.opened > 0:
		return s.openID
	case s.sealed > 0:
		return s.sealedID
	}
	return 0
}

// dueBefore counts the keys that are in an epoch not newer than mark. The open epoch may have got a new ID since.
func (s *shardState) dueBefore(mark int64) int64 {
	switch {
	case mark <= s.watermark:
		return 0
	case s.sealed > 0 && mark <= s.sealedID:
		return s.sealed
	}
	return s.sealed + s.opened
}

// UnflushedOf is Unflushed for the given keys only, in one round trip for each of their shards and another for those set aside.
func (c *Cache) UnflushedOf(ctx context.Context, keys []counter.Key, before Moment) (Unflushed, error) {
	u := Unflushed{At: make(Moment, c.shards)}
	for shard, part := range c.byShard(keys) {
		snapshot, err := c.Read(ctx, shard, part)
		if err != nil {
			return Unflushed{}, err
		}
		due, aside := int64(0), []string(nil)
		for i := range snapshot.Entries {
			e := &snapshot.Entries[i]
			switch {
			case e.Corrupt, e.Aside:
				aside = append(aside, string(e.Key))
			case e.Epoch > snapshot.Watermark:
				u.At[shard] = max(u.At[shard], e.Epoch)
				if before == nil || snapshot.Watermark < before[shard] {
					due++
				}
			}
		}
		u.add(shard, due)
		if err := c.countAside(ctx, shard, aside, &u); err != nil {
			return Unflushed{}, err
		}
	}
	return u, nil
}

// countAside counts keys that are set aside by whether they are dead.
func (c *Cache) countAside(ctx context.Context, shard counter.Shard, keys []string, u *Unflushed) error {
	if len(keys) == 0 {
		return nil
	}
	notes, err := c.client.HMGet(ctx, deadKey(shard), keys...).Result()
	if err != nil {
		return fmt.Errorf("look for dead keys of shard %s: %w", shard, err)
	}
	for _, note := range notes {
		if note != nil {
			u.Dead++
		} else {
			u.Retrying++
		}
	}
	return nil
}

func (u *Unflushed) add(shard counter.Shard, due int64) {
	if due > 0 {
		u.Due += due
		u.Shards = append(u.Shards, shard)
	}
}
