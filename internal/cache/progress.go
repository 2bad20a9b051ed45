package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// ackChannel is the channel on which commit.lua and settle.lua publish the tag of a shard whose keys have reached Postgres.
const ackChannel = "aw:acks"

// Progress says how far a shard has got on its way to Postgres.
type Progress struct {
	Open      int64 // the epoch that writes join
	Sealed    int64 // the epoch that is being flushed, 0: none
	Watermark int64 // the last epoch that Postgres has all of, but for keys that were set aside
	First     int64 // the first epoch of this incarnation of Redis
	Requeued  int64 // the last epoch that keys joined again whose writes are older
	Aside     bool  // some keys are set aside now
}

// Progress returns how far the shard has got. In one round trip of constant time, whoever waits for it.
func (c *Cache) Progress(ctx context.Context, shard counter.Shard) (Progress, error) {
	// In this order: what the watermark passes over is set aside before, and what has been taken up again since is in requeued.
	pipe := c.client.Pipeline()
	before := pipe.Get(ctx, c.metaKey(shard))
	aside := pipe.Exists(ctx, c.retryKey(shard), c.deadKey(shard))
	after := pipe.Get(ctx, c.metaKey(shard))
	_ = send(ctx, pipe) // each command has its own error
	meta, err := metaOf(before)
	later, laterErr := metaOf(after)
	if err = cmp.Or(err, aside.Err(), laterErr); err != nil {
		return Progress{}, fmt.Errorf("progress of shard %s: %w", shard, err)
	}
	return Progress{
		Open: meta.open, Sealed: meta.sealed, Watermark: meta.watermark, First: meta.first,
		Requeued: later.requeued, Aside: aside.Val() > 0,
	}, nil
}

// metaOf reads the answer to GET of a shard's meta.
func metaOf(reply *redis.StringCmd) (shardMeta, error) {
	text, err := reply.Result()
	switch {
	case errors.Is(err, redis.Nil):
		return shardMeta{}, nil
	case err != nil:
		return shardMeta{}, err
	}
	return decodeMeta(text)
}

// Acks is a subscription to what commits say, one connection for all that is waited for in this process.
type Acks struct {
	pubsub *redis.PubSub
	cache  *Cache
}

// Acks subscribes. Close ends it. The connection is made, and made again where it breaks, in the background, with pauses.
func (c *Cache) Acks(ctx context.Context) *Acks {
	return &Acks{pubsub: c.client.Subscribe(ctx, c.prefix+ackChannel), cache: c}
}

// Run calls acked with the shard of each message, and connected each time that the subscription has been made: what was
// said before, nobody has heard. It returns when the subscription is closed.
func (a *Acks) Run(acked func(counter.Shard), connected func()) {
	for message := range a.pubsub.ChannelWithSubscriptions() {
		switch m := message.(type) {
		case *redis.Subscription:
			connected()
		case *redis.Message:
			number := strings.TrimSuffix(strings.TrimPrefix(m.Payload, a.cache.tagPrefix()), "}")
			if shard, err := strconv.Atoi(number); err == nil && shard >= 0 && shard < a.cache.shards {
				acked(counter.Shard(shard))
			}
		}
	}
}

// Close ends the subscription, and Run.
func (a *Acks) Close() {
	_ = a.pubsub.Close() // an error of closing a connection that is not used any more
}
