package cache

import (
	"context"
	"slices"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Unflushed counts the keys that were written before a moment and are still dirty.
type Unflushed struct {
	Due      int64 // keys that a drain would flush now, including set-aside keys that are due
	Retrying int64 // keys that were set aside until later
	Dead     int64 // keys that Postgres refused in all attempts

	Shards []counter.Shard // those with due keys

	At Moment // for the next call
}

// Moment is a moment in the history of each shard: the newest epoch that had keys then, 0: none. nil means now.
type Moment []int64

// Unflushed counts the keys of all shards that have been dirty since before a moment. Later writes do not count, except those to keys of
// the same epoch. Pass Unflushed.At to the next call: it is the same moment, except in shards where keys are set aside or have joined a
// later epoch. In those shards it is now, because such keys cannot be told from others.
func (c *Cache) Unflushed(ctx context.Context, before Moment) (Unflushed, error) {
	shards, _ := c.Backlogs(ctx)
	if err := shards.Err(); err != nil {
		return Unflushed{}, err
	}
	u := Unflushed{At: make(Moment, len(shards))}
	for i := range shards {
		s := &shards[i]
		u.At[i] = before.keep(i, s.Retrying, s.meta.requeued, s.last())
		u.add(counter.Shard(i), s.dueBefore(u.At[i])+s.due)
		u.Retrying += max(s.Retrying-s.due, 0)
		u.Dead += s.Dead
	}
	return u, nil
}

// keep returns the moment of a shard if none of its earlier keys can have joined a later epoch, else now. aside is the number of set-aside
// keys, and requeued the last epoch that set-aside keys have joined.
func (m Moment) keep(shard int, aside, requeued, now int64) int64 {
	if m == nil || aside > 0 || (m[shard] > 0 && requeued > m[shard]) {
		return now
	}
	return m[shard]
}

// last returns the newest epoch that has keys, or that set-aside keys may join; 0: there are none.
func (b *ShardBacklog) last() int64 {
	if b.inOpen > 0 || b.meta.since > 0 || b.Retrying > 0 {
		return b.meta.open
	}
	return b.meta.sealed
}

// dueBefore counts the keys that are in an epoch up to mark. The open epoch may have a new ID by now.
func (b *ShardBacklog) dueBefore(mark int64) int64 {
	switch {
	case mark <= b.meta.watermark:
		return 0
	case b.inSealed > 0 && mark <= b.meta.sealed:
		return b.inSealed
	}
	return b.inSealed + b.inOpen
}

// maxUnflushed bounds the entries that one call reads.
const maxUnflushed = 1000

// UnflushedOf is Unflushed for the given keys only. It takes one round trip for each 1,000 keys of a shard, and some more if keys are set
// aside.
func (c *Cache) UnflushedOf(ctx context.Context, keys []counter.Key, before Moment) (Unflushed, error) {
	u := Unflushed{At: make(Moment, c.shards)}
	for shard, all := range c.byShard(keys) {
		var n keyCounts
		for part := range slices.Chunk(all, maxUnflushed) {
			snapshot, err := c.Read(ctx, shard, part)
			if err == nil {
				err = c.countAside(ctx, shard, n.add(&snapshot, before), &n)
			}
			if err != nil {
				return Unflushed{}, err
			}
		}
		u.At[shard] = before.keep(int(shard), n.due+n.retrying, n.requeued, n.last)
		if u.At[shard] == n.last {
			n.before = n.dirty
		}
		u.add(shard, n.before+n.due)
		u.Retrying += n.retrying
		u.Dead += n.dead
	}
	return u, nil
}

// keyCounts counts some keys of one shard.
type keyCounts struct {
	dirty, before       int64 // keys in an epoch, and the ones in an epoch since before the moment
	due, retrying, dead int64 // set-aside keys
	last                int64 // the newest epoch with some of the keys, or that set-aside keys may join; 0: none
	requeued            int64
}

// add counts entries and returns the keys that are not in an epoch.
func (n *keyCounts) add(snapshot *Snapshot, before Moment) (aside []counter.Key) {
	n.requeued = max(n.requeued, snapshot.meta.requeued)
	for i := range snapshot.Entries {
		e := &snapshot.Entries[i]
		switch {
		case e.Corrupt, e.Aside:
			aside = append(aside, e.Key)
			n.last = max(n.last, snapshot.meta.open)
		case e.Epoch > snapshot.Watermark:
			n.dirty++
			n.last = max(n.last, e.Epoch)
			if before != nil && snapshot.Watermark < before[snapshot.Shard] {
				n.before++
			}
		}
	}
	return aside
}

// countAside counts keys that were not in an epoch when they were read. A key that no flush would find does not count.
func (c *Cache) countAside(ctx context.Context, shard counter.Shard, keys []counter.Key, n *keyCounts) error {
	if len(keys) == 0 {
		return nil
	}
	now, err := c.Now(ctx)
	if err != nil {
		return err
	}
	inspected, err := c.inspect(ctx, shard, keys)
	if err != nil {
		return err
	}
	for i := range inspected {
		switch in := &inspected[i]; {
		case in.Dead:
			n.dead++
		case in.RetryAt > now:
			n.retrying++
		case in.Dirty:
			n.due++
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
