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

// ackChannel is where commit.lua and settle.lua publish the shards whose keys have reached Postgres.
const ackChannel = "aw:acks"

// Progress is the state of the epochs of one shard, for callers that wait until Postgres has a write.
type Progress struct {
	Open      int64 // the epoch that takes writes
	Sealed    int64 // the epoch that is being flushed; 0: none
	Watermark int64 // the last epoch whose keys Postgres all has, except set-aside ones
	First     int64 // the first epoch of this incarnation of Redis
	Requeued  int64 // the last epoch that requeued keys have joined
	Aside     bool  // some keys are set aside now
}

// Progress reads the progress of the shard. One round trip of constant time, whatever the number of waiters.
func (c *Cache) Progress(ctx context.Context, shard counter.Shard) (Progress, error) {
	// The order matters: the watermark passes a key that is set aside. So if it has passed a key, aside shows that the key is set aside, or
	// requeued shows that it was requeued since.
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

// metaOf reads the reply to GET of a shard's meta.
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

// Acks is a subscription to commits: one connection for all waits of this process.
type Acks struct {
	pubsub *redis.PubSub
	cache  *Cache
}

// Acks subscribes; Close ends the subscription. It connects, and reconnects with pauses, in the background.
func (c *Cache) Acks(ctx context.Context) *Acks {
	return &Acks{pubsub: c.client.Subscribe(ctx, c.prefix+ackChannel), cache: c}
}

// Run calls acked with the shard of each message, and connected after each connect: earlier messages are lost. It blocks until the
// subscription is closed.
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
	_ = a.pubsub.Close() // the connection is not used any more
}
