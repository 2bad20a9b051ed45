package cache

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// ackChannel is where ack.lua says which shard's keys have reached Postgres.
const ackChannel = "aw:acks"

// maxProgressKeys bounds one call of progress.lua: 2 ms of Redis's time, at 4 µs for each key.
const maxProgressKeys = 500

// Progress says how far a key has got on its way to Postgres.
type Progress struct {
	Entry     bool  // there is one; without it, Version and Committed mean nothing
	Dirty     bool  // Postgres does not have all of it
	Version   int64 // of the entry
	Committed int64 // while dirty: a version that Postgres has, of the same run of writes; 0: none is known

	// While dirty: the run of unsynced writes that the entry is in, and the version before its first.
	Life string
	Base int64

	BaseUnknown bool // Version counts from a base that is not known yet
}

// Progress returns how far keys, all of one shard, have got, in one round trip for each 500. incarnation names this run of
// the Redis that answered: another after a restart or a failover, which may have lost the end of what was written.
func (c *Cache) Progress(ctx context.Context, shard counter.Shard, keys []counter.Key) (states []Progress, incarnation string, err error) {
	states = make([]Progress, 0, len(keys))
	for len(keys) > 0 {
		part := keys[:min(len(keys), maxProgressKeys)]
		keys = keys[len(part):]
		args := make([]any, len(part))
		for i, key := range part {
			args[i] = string(key)
		}
		reply, err := progressScript.Run(ctx, c.client, []string{dirtyKey(shard)}, args...).StringSlice()
		if err == nil && len(reply) != len(part)+1 {
			err = fmt.Errorf("redis answered with %d strings", len(reply))
		}
		if err != nil {
			return nil, "", fmt.Errorf("progress of %d keys of shard %s: %w", len(part), shard, err)
		}
		incarnation = reply[0]
		for _, line := range reply[1:] {
			states = append(states, decodeProgress(line))
		}
	}
	return states, incarnation, nil
}

// decodeProgress reads one line of the reply of progress.lua. An entry that is not one of ours gets nowhere: it is dirty.
func decodeProgress(line string) Progress {
	version, rest, _ := strings.Cut(line, " ")
	state, rest, _ := strings.Cut(rest, " ")
	if version == "-" {
		return Progress{Dirty: state != "c"}
	}
	n, err := strconv.ParseInt(version, 10, 64)
	if err != nil {
		return Progress{Dirty: true}
	}
	p := Progress{Entry: true, Version: n, Dirty: state != "c", BaseUnknown: state == "u"}
	if state == "d" {
		committed, rest, _ := strings.Cut(rest, " ")
		base, life, _ := strings.Cut(rest, " ")
		p.Life = life
		p.Committed, _ = strconv.ParseInt(committed, 10, 64) // 0 where somebody else has written it
		p.Base, _ = strconv.ParseInt(base, 10, 64)
	}
	return p
}

// Acks is a subscription to what acks say, one connection for all that is waited for in this process.
type Acks struct {
	pubsub *redis.PubSub
	cache  *Cache
}

// Acks subscribes. Close ends it. The connection is made, and made again where it breaks, in the background, with pauses.
func (c *Cache) Acks(ctx context.Context) *Acks {
	return &Acks{pubsub: c.client.Subscribe(ctx, ackChannel), cache: c}
}

// Run calls acked with the shard of each message, and connected each time that the subscription has been made: what was
// said before, nobody has heard. It returns when the subscription is closed.
func (a *Acks) Run(acked func(counter.Shard), connected func()) {
	for message := range a.pubsub.ChannelWithSubscriptions() {
		switch m := message.(type) {
		case *redis.Subscription:
			connected()
		case *redis.Message:
			number := strings.TrimSuffix(strings.TrimPrefix(m.Payload, "{aw:"), "}")
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
