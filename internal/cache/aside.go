package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// maxAside bounds one call about keys that are set aside: Redis does nothing else meanwhile, and takes 4 to 6 µs for each.
const maxAside = 300

// Dead is what is known of a key that Postgres refused for good. It stays dirty and goes on taking writes.
type Dead struct {
	Reason   string    `json:"reason"` // what Postgres said
	Since    time.Time `json:"since"`
	Attempts int       `json:"attempts"`
}

// SetAside sets dirty keys aside, all of one shard: no flush takes them up before the given time is over. Their retry does.
// Keys that are clean are left alone. It blocks for one round trip for each 300 keys.
func (c *Cache) SetAside(ctx context.Context, shard counter.Shard, keys []counter.Key, until time.Duration) error {
	return c.setAside(ctx, shard, keys, ms(until), "")
}

// Bury makes a dirty key a dead letter.
func (c *Cache) Bury(ctx context.Context, key counter.Key, dead Dead) error {
	note, err := json.Marshal(dead)
	if err != nil {
		return fmt.Errorf("bury %q: %w", key, err)
	}
	return c.setAside(ctx, c.Shard(key), []counter.Key{key}, "dead", string(note))
}

func (c *Cache) setAside(ctx context.Context, shard counter.Shard, keys []counter.Key, until, note string) error {
	for part := range slices.Chunk(keys, maxAside) {
		names, args := []string{c.metaKey(shard), c.retryKey(shard), c.deadKey(shard)}, []any{until, note}
		for _, key := range part {
			names, args = append(names, c.entryKey(key)), append(args, string(key))
		}
		if err := asideScript.Run(ctx, c.client, names, args...).Err(); err != nil {
			return fmt.Errorf("set %d keys of shard %s aside: %w", len(part), shard, err)
		}
	}
	return nil
}

// Settle ends that entries are set aside, all of one shard, after Postgres has committed them as they were read. Those that are
// still the same become clean; those that were written since join the open epoch. It may be done twice.
func (c *Cache) Settle(ctx context.Context, shard counter.Shard, entries []Entry) error {
	for part := range slices.Chunk(entries, maxAside) {
		names := []string{c.metaKey(shard), c.openKey(shard), c.sealedKey(shard), c.retryKey(shard), c.deadKey(shard)}
		args := []any{ms(c.cleanTTL)}
		for i := range part {
			names, args = append(names, c.entryKey(part[i].Key)), append(args, string(part[i].Key), part[i].text)
		}
		if err := settleScript.Run(ctx, c.client, names, args...).Err(); err != nil {
			return fmt.Errorf("settle %d keys of shard %s: %w", len(part), shard, err)
		}
	}
	return nil
}

// Requeue puts those of keys that wait for a retry into the open epochs of their shards. Others, dead ones too, are left alone,
// so it may be done twice. It sends no task, and leaves the retries that are there. It blocks for one bounded call for each 300
// keys of a shard.
func (c *Cache) Requeue(ctx context.Context, keys []counter.Key) error {
	byShard := make(map[counter.Shard][]any)
	for _, key := range keys {
		byShard[c.Shard(key)] = append(byShard[c.Shard(key)], string(key))
	}
	for shard, args := range byShard {
		for part := range slices.Chunk(args, maxAside) {
			if _, err := c.requeue(ctx, shard, "retry", part...); err != nil {
				return err
			}
		}
	}
	return nil
}

// RequeueDue is Requeue for up to 300 keys of a shard whose time has come.
func (c *Cache) RequeueDue(ctx context.Context, shard counter.Shard) (keys []counter.Key, err error) {
	return c.requeue(ctx, shard, "due", maxAside)
}

// Redrive puts those of keys, all of one shard, that are dead into the open epoch, and returns them. Keys that are not dead are
// left alone, so it may be done twice. All of them are done or none. Redis does nothing else meanwhile: give it some hundred
// keys at most. It sends no task: a sweep would find the keys, but a drain finds them sooner.
func (c *Cache) Redrive(ctx context.Context, shard counter.Shard, keys []counter.Key) ([]counter.Key, error) {
	args := make([]any, len(keys))
	for i, k := range keys {
		args[i] = string(k)
	}
	return c.requeue(ctx, shard, "dead", args...)
}

func (c *Cache) requeue(ctx context.Context, shard counter.Shard, which string, args ...any) ([]counter.Key, error) {
	names := []string{c.metaKey(shard), c.openKey(shard), c.retryKey(shard), c.deadKey(shard)}
	reply, err := requeueScript.Run(ctx, c.client, names, append([]any{which}, args...)...).StringSlice()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("requeue keys of shard %s: %w", shard, err)
	}
	keys := make([]counter.Key, len(reply))
	for i, key := range reply {
		keys[i] = counter.Key(key)
	}
	return keys, nil
}

// DeadLetter returns what is known of key if it is dead.
func (c *Cache) DeadLetter(ctx context.Context, key counter.Key) (dead Dead, found bool, err error) {
	note, err := c.client.HGet(ctx, c.deadKey(c.Shard(key)), string(key)).Result()
	if errors.Is(err, redis.Nil) {
		return Dead{}, false, nil
	}
	if err == nil {
		err = json.Unmarshal([]byte(note), &dead)
	}
	if err != nil {
		return Dead{}, false, fmt.Errorf("dead letter %q: %w", key, err)
	}
	return dead, true, nil
}
