package cache

import (
	"context"
	"encoding/json"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// deadPage is about how many notes one HSCAN returns: Redis does nothing else meanwhile. Redis returns a small hash as a whole, with up
// to 512 notes by default (hash-max-listpack-entries).
const deadPage = 500

// Note is a dead key with what is known about it.
type Note struct {
	Dead

	Key counter.Key
}

// EachDead calls page with the dead keys of the shard, some hundred at a time and each key once, in no order. It may miss keys that become
// dead, or stop being dead, meanwhile. page may redrive or discard what it is given. An error of page ends the iteration and is returned
// as it is.
//
// It makes one bounded call to Redis for each page, and keeps the keys of one shard in memory.
func (c *Cache) EachDead(ctx context.Context, shard counter.Shard, page func([]Note) error) error {
	seen := make(map[counter.Key]bool) // HSCAN may return a field twice while the hash is resized
	return eachPage("the dead keys of shard "+shard.String(), func(cursor uint64) ([]string, uint64, error) {
		return c.client.HScan(ctx, c.deadKey(shard), cursor, "", deadPage).Result()
	}, func(fields []string) error {
		notes := make([]Note, 0, len(fields)/2)
		for i := 0; i+1 < len(fields); i += 2 {
			key := counter.Key(fields[i])
			if !seen[key] {
				seen[key] = true
				notes = append(notes, Note{Key: key, Dead: decodeNote(fields[i+1])})
			}
		}
		if len(notes) == 0 {
			return nil
		}
		return page(notes)
	})
}

// decodeNote reads a note. A note that cannot be read must hide neither the others nor that its key is dead.
func decodeNote(note string) Dead {
	var dead Dead
	if err := json.Unmarshal([]byte(note), &dead); err != nil {
		return Dead{Reason: "(its note cannot be read: " + err.Error() + ")"}
	}
	return dead
}
