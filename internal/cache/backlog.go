package cache

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Backlog counts the dirty keys of one shard or of all shards.
type Backlog struct {
	// Dirty is the number of dirty keys, without dead ones. A key that is written while its shard is being flushed counts twice until the
	// flush ends.
	Dirty    int64
	Retrying int64         // dirty keys that are set aside: Postgres refused them, or their rows were locked
	Dead     int64         // keys that Postgres refused in all attempts
	Oldest   time.Duration // time since the first write of the oldest unflushed epoch

	Records     int64 // operations of counters with a history that Postgres lacks
	MostRecords int64 // of these, those of the shard that has the most; AFTERWRITE_MAX_HISTORY bounds each shard

	Uncounted int // shards that did not answer; the numbers above lack them
}

// ShardBacklog is the Backlog of one shard.
type ShardBacklog struct {
	Backlog

	Unknown bool // Redis (on a cluster, the shard's node) did not answer; all else is 0

	meta             shardMeta
	inOpen, inSealed int64         // keys
	due              int64         // set-aside keys that are due
	taken            bool          // a drain is flushing it
	ahead            time.Duration // how far in the future the oldest epoch began: Redis's clock has been set back since
	err              error         // why it is Unknown
}

// Backlogs is the backlog of every shard, by shard.
type Backlogs []ShardBacklog

// Sum returns the backlog of all shards.
func (b Backlogs) Sum() Backlog {
	var sum Backlog
	for i := range b {
		if b[i].Unknown {
			sum.Uncounted++
		}
		sum.Dirty += b[i].Dirty
		sum.Retrying += b[i].Retrying
		sum.Dead += b[i].Dead
		sum.Oldest = max(sum.Oldest, b[i].Oldest)
		sum.Records += b[i].Records
		sum.MostRecords = max(sum.MostRecords, b[i].Records)
	}
	return sum
}

// Err returns an error if a shard is Unknown. If a node reported why it does not serve (see Denial), Err returns that error.
func (b Backlogs) Err() error {
	var failed, denied error
	for i := range b {
		failed = cmp.Or(failed, b[i].err)
		if Denial(b[i].err) != "" {
			denied = cmp.Or(denied, b[i].err)
		}
	}
	if failed == nil {
		return nil
	}
	return fmt.Errorf("count dirty keys: %w", cmp.Or(denied, failed))
}

// Backlogs reads the backlog of every shard. Shards that do not answer are Unknown; it fails only if none answers. It takes two round trips
// (on a cluster, one to each node): three commands, and eight of constant or logarithmic time for each shard with something to count.
func (c *Cache) Backlogs(ctx context.Context) (Backlogs, error) {
	counts, now, err := c.countShards(ctx)
	shards := make(Backlogs, c.shards)
	for i := range shards {
		b := &shards[i]
		if b.err = err; err == nil && counts[i] != nil {
			b.err = b.fill(counts[i], now)
		}
		b.Unknown = b.err != nil
	}
	if shards.Sum().Uncounted == c.shards {
		return shards, shards.Err()
	}
	return shards, nil
}

// Backlog returns the sum of Backlogs. If a shard does not answer, it returns the sum of the others and an error.
func (c *Cache) Backlog(ctx context.Context) (Backlog, error) {
	shards, _ := c.Backlogs(ctx)
	return shards.Sum(), shards.Err()
}

// Overdue returns the shards whose oldest epoch has waited for at least age, or that have due set-aside keys. It omits shards that are
// being flushed and shards that do not answer. It fails only if none answers.
func (c *Cache) Overdue(ctx context.Context, age time.Duration) ([]counter.Shard, error) {
	shards, err := c.Backlogs(ctx)
	var overdue []counter.Shard
	for i := range shards {
		b := &shards[i]
		if !b.taken && (b.due > 0 || (b.oldest() > 0 && max(b.Oldest, b.ahead) >= age)) {
			overdue = append(overdue, counter.Shard(i))
		}
	}
	return overdue, err
}

// shardCounts are the pending replies about one shard.
type shardCounts struct {
	open, sealed, retry, dead, due, taken *redis.IntCmd

	records, meta *redis.StringCmd
}

// countShard queues the commands that count one shard. Set-aside keys are due at the time at, in ms.
func (c *Cache) countShard(ctx context.Context, pipe redis.Pipeliner, s counter.Shard, at int64) *shardCounts {
	return &shardCounts{
		open:   pipe.SCard(ctx, c.openKey(s)),
		sealed: pipe.SCard(ctx, c.sealedKey(s)),
		retry:  pipe.ZCard(ctx, c.retryKey(s)),
		dead:   pipe.HLen(ctx, c.deadKey(s)),
		due:    pipe.ZCount(ctx, c.retryKey(s), "-inf", itoa(at)),
		taken:  pipe.Exists(ctx, c.drainKey(s)),

		records: pipe.Get(ctx, c.countKey(s)),

		meta: pipe.Get(ctx, c.metaKey(s)), // last: it shows whether keys have left their epoch or retry since they were counted
	}
}

// fill reads the replies about a shard. After an error all is 0.
func (b *ShardBacklog) fill(n *shardCounts, now int64) error {
	meta, err := metaOf(n.meta)
	err = cmp.Or(n.open.Err(), n.sealed.Err(), n.retry.Err(), n.dead.Err(), n.due.Err(), n.taken.Err(), err)
	if err != nil {
		return err
	}
	b.meta, b.inOpen, b.inSealed, b.due, b.taken = meta, n.open.Val(), n.sealed.Val(), n.due.Val(), n.taken.Val() > 0
	b.Retrying, b.Dead = n.retry.Val(), n.dead.Val()
	b.Dirty = b.inOpen + b.inSealed + b.Retrying
	b.Records, _ = n.records.Int64() // 0 if there is none
	b.MostRecords = b.Records
	if oldest := b.oldest(); oldest > 0 {
		b.Oldest = max(0, time.Duration(now-oldest)*time.Millisecond)
		b.ahead = max(0, time.Duration(oldest-now)*time.Millisecond)
	}
	return nil
}

// oldest returns when the first key of the oldest epoch was written, in ms; 0 if there is none.
func (b *ShardBacklog) oldest() int64 {
	switch {
	case b.meta.sealed > 0 && b.meta.sealedSince > 0: // even without keys: it must still be committed
		return b.meta.sealedSince
	case b.inOpen > 0:
		return b.meta.since
	}
	return 0
}

// countShards counts each shard with something to count (nil for the others), and returns the time in ms. On a cluster it counts all shards
// in one round trip: if a node hangs, there is no time for a second one.
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
		if clock.Err() == nil { // otherwise that node is away, and this process's clock must do
			now = clock.Val().UnixMilli()
		}
		return counts, now, nil
	}
	busy, now, err := c.busyShards(ctx)
	if err != nil {
		return nil, 0, err
	}
	for _, s := range busy {
		counts[s] = c.countShard(ctx, pipe, s, now)
	}
	if pipe.Len() > 0 {
		_ = send(ctx, pipe) // each command has its own error
	}
	return counts, now, nil
}

// busyShards returns the shards with something to count, and the time in ms. Three commands in one round trip.
func (c *Cache) busyShards(ctx context.Context) (busy []counter.Shard, now int64, err error) {
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
	for i, text := range metas.Val() {
		meta, err := decodeMeta(text)
		if err != nil || meta.since > 0 || meta.sealed > 0 || aside.Val() > 0 {
			busy = append(busy, counter.Shard(i))
		}
	}
	return busy, clock.Val().UnixMilli(), nil
}
