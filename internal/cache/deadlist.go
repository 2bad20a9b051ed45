package cache

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// deadPage is about how many notes one HSCAN returns: Redis does nothing else meanwhile. A small hash is stored in one
// piece and comes whole, up to 512 notes by Redis's default (hash-max-listpack-entries).
const deadPage = 500

// Note is a dead key with what is known of it.
type Note struct {
	Dead

	Key counter.Key
}

// EachDead calls page with the dead keys of the shard, some hundred at a time and each key once, in no order. A key that
// becomes dead, or ceases to be, meanwhile may be in or not. page may redrive or discard what it is given. An error of
// page ends it and is returned as it is.
//
// It blocks for one bounded call to Redis for each page, and keeps the keys of one shard in memory.
func (c *Cache) EachDead(ctx context.Context, shard counter.Shard, page func([]Note) error) error {
	seen := make(map[counter.Key]bool) // HSCAN may return a field twice while the hash changes its size
	for cursor := uint64(0); ; {
		fields, next, err := c.client.HScan(ctx, c.deadKey(shard), cursor, "", deadPage).Result()
		if err != nil {
			return fmt.Errorf("list dead keys of shard %s: %w", shard, err)
		}
		notes := make([]Note, 0, len(fields)/2)
		for i := 0; i+1 < len(fields); i += 2 {
			key := counter.Key(fields[i])
			if !seen[key] {
				seen[key] = true
				notes = append(notes, Note{Key: key, Dead: decodeNote(fields[i+1])})
			}
		}
		if len(notes) > 0 {
			if err := page(notes); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// decodeNote reads a note. One that cannot be read must not hide the others, nor that its key is dead.
func decodeNote(note string) Dead {
	var dead Dead
	if err := json.Unmarshal([]byte(note), &dead); err != nil {
		return Dead{Reason: "(its note cannot be read: " + err.Error() + ")"}
	}
	return dead
}

// Condition says where a key stands on its way to Postgres.
type Condition int

// The conditions.
const (
	Clean   Condition = iota // Postgres has it
	Pending                  // dirty: it waits for a flush or for its retry
	IsDead                   // Postgres refused it for good
)

// Conditions returns where keys, all of one shard, stand: one for each, in their order. In one round trip, or two.
func (c *Cache) Conditions(ctx context.Context, shard counter.Shard, keys []counter.Key) ([]Condition, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	// In this order: a key that dies in between is Pending.
	notes, err := c.client.HMGet(ctx, c.deadKey(shard), texts(keys)...).Result()
	if err != nil {
		return nil, fmt.Errorf("look at %d keys of shard %s: %w", len(keys), shard, err)
	}
	snapshot, err := c.Read(ctx, shard, keys)
	if err != nil {
		return nil, err
	}
	out := make([]Condition, len(keys))
	for i := range keys {
		switch e := &snapshot.Entries[i]; {
		case notes[i] != nil:
			out[i] = IsDead
		case e.Corrupt || e.Dirty(snapshot.Watermark):
			out[i] = Pending
		}
	}
	return out, nil
}

func texts(keys []counter.Key) []string {
	out := make([]string, len(keys))
	for i, key := range keys {
		out[i] = string(key)
	}
	return out
}
