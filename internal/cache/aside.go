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

// maxAside bounds the set-aside keys of one call, which blocks Redis for 4 to 6 µs a key.
const maxAside = 300

// Dead is the note of a dead key: Postgres refused it in all attempts. The key stays dirty and still accepts writes.
type Dead struct {
	Reason   string    `json:"reason"` // the error of Postgres
	Since    time.Time `json:"since"`
	Attempts int       `json:"attempts"`
}

// SetAside sets dirty keys of one shard aside for the duration until: before that, only their retry flushes them. It ignores clean keys.
// One round trip for each 300 keys.
func (c *Cache) SetAside(ctx context.Context, shard counter.Shard, keys []counter.Key, until time.Duration) error {
	return c.setAside(ctx, shard, keys, ms(until), "")
}

// Bury makes a dirty key a dead letter. One round trip.
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

// Settle takes set-aside entries of one shard back after Postgres has committed them. Unchanged entries become clean; entries written since
// they were read join the open epoch. It may be repeated. One round trip for each 300 entries.
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

// Requeue puts keys that wait for a retry into the open epochs of their shards. It ignores all other keys, dead ones included, so it may be
// repeated. It sends no task and leaves retry tasks alone. One bounded call for each 300 keys of a shard.
func (c *Cache) Requeue(ctx context.Context, keys []counter.Key) error {
	for shard, all := range c.byShard(keys) {
		for part := range slices.Chunk(all, maxAside) {
			if _, err := c.requeue(ctx, shard, "retry", members(part)...); err != nil {
				return err
			}
		}
	}
	return nil
}

// RequeueDue requeues up to 300 due keys of a shard and returns them.
func (c *Cache) RequeueDue(ctx context.Context, shard counter.Shard) (keys []counter.Key, err error) {
	return c.requeue(ctx, shard, "due", maxAside)
}

// Redrive puts dead keys of one shard into the open epoch, in one atomic step, and returns them. It ignores keys that are not dead, so it
// may be repeated. It blocks Redis: pass a few hundred keys at most. It sends no task: send a drain, or the next sweep finds the keys.
func (c *Cache) Redrive(ctx context.Context, shard counter.Shard, keys []counter.Key) ([]counter.Key, error) {
	return c.requeue(ctx, shard, "dead", members(keys)...)
}

func (c *Cache) requeue(ctx context.Context, shard counter.Shard, which string, args ...any) ([]counter.Key, error) {
	names := []string{c.metaKey(shard), c.openKey(shard), c.retryKey(shard), c.deadKey(shard)}
	reply, err := requeueScript.Run(ctx, c.client, names, append([]any{which}, args...)...).StringSlice()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("requeue keys of shard %s: %w", shard, err)
	}
	return keysOf(reply), nil
}

// DeadLetter returns the note of key, if key is dead.
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
