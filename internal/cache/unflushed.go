package cache

import (
	"context"
	"slices"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Unflushed is what Postgres does not have of what was written before some moment.
type Unflushed struct {
	Due      int64 // keys that a drain would flush now, also those that were set aside and whose time has come
	Retrying int64 // keys that wait for another try, because Postgres refused them or their row was locked
	Dead     int64 // keys that Postgres refused for good

	Shards []counter.Shard // that have due keys

	At Moment // for the next call
}

// Moment is a moment in the life of each shard, for Unflushed: the epoch that was the last to have keys then, 0: none. nil is now.
type Moment []int64

// Unflushed counts the keys that have been dirty since before a moment, in all shards: what is written later does not count,
// unless it is counted with the others of its epoch. Give the next call the moment of this one. That is the same moment, but for
// shards where keys are set aside, or have joined a later epoch since: there it is now, since these are not told from others.
func (c *Cache) Unflushed(ctx context.Context, before Moment) (Unflushed, error) {
	shards, err := c.backlogs(ctx)
	if err != nil {
		return Unflushed{}, err
	}
	u := Unflushed{At: make(Moment, len(shards))}
	for i := range shards {
		s := &shards[i]
		u.At[i] = before.keep(i, s.Retrying, s.state.requeued, s.last())
		u.add(counter.Shard(i), s.state.dueBefore(u.At[i])+s.state.due)
		u.Retrying += max(s.Retrying-s.state.due, 0)
		u.Dead += s.Dead
	}
	return u, nil
}

// keep returns the moment of a shard if no key of before it can have joined a later epoch, else now. aside is how many keys are set
// aside, and requeued the last epoch that some have joined again.
func (m Moment) keep(shard int, aside, requeued, now int64) int64 {
	if m == nil || aside > 0 || (m[shard] > 0 && requeued > m[shard]) {
		return now
	}
	return m[shard]
}

// last is the newest epoch that has keys, or that those which are set aside may join; 0: there are none.
func (b *ShardBacklog) last() int64 {
	switch s := &b.state; {
	case s.inOpen > 0, s.since > 0, b.Retrying > 0:
		return s.open
	default:
		return s.sealed
	}
}

// dueBefore counts the keys that are in an epoch not newer than mark. The open epoch may have got a new ID since.
func (s *shardState) dueBefore(mark int64) int64 {
	switch {
	case mark <= s.watermark:
		return 0
	case s.inSealed > 0 && mark <= s.sealed:
		return s.inSealed
	}
	return s.inSealed + s.inOpen
}

// maxUnflushed bounds the entries that are read at once.
const maxUnflushed = 1000

// UnflushedOf is Unflushed for the given keys only, in one round trip for each 1,000 of a shard, and some more where
// keys are set aside.
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

// keyCounts are of some keys of one shard.
type keyCounts struct {
	dirty, before       int64 // in an epoch; of these, since before the moment
	due, retrying, dead int64 // set aside
	last                int64 // the newest epoch that has some of them, or that those which are set aside may join; 0: none
	requeued            int64
}

// add counts entries, and returns the keys of those that are not in an epoch.
func (n *keyCounts) add(snapshot *Snapshot, before Moment) (aside []counter.Key) {
	n.requeued = max(n.requeued, snapshot.requeued)
	for i := range snapshot.Entries {
		e := &snapshot.Entries[i]
		switch {
		case e.Corrupt, e.Aside:
			aside = append(aside, e.Key)
			n.last = max(n.last, snapshot.open)
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

// countAside counts keys that were not in an epoch when they were read. One that no flush would come across does not count.
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
