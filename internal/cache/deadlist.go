package cache

import (
	"context"
	"encoding/json"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// deadPage is the approximate number of notes that one HSCAN returns, which blocks Redis. Redis returns a small hash as a whole: up to 512
// notes by default (hash-max-listpack-entries).
const deadPage = 500

// Note is a dead key and its note.
type Note struct {
	Dead

	Key counter.Key
}

// EachDead calls page with the dead keys of the shard, a few hundred at a time, each key once, in no order. It may miss keys that become
// dead, or stop being dead, meanwhile. page may redrive or discard its keys. If page returns an error, EachDead stops and returns it
// unchanged.
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

// decodeNote reads a note. An unreadable note must hide neither other notes nor its own key.
func decodeNote(note string) Dead {
	var dead Dead
	if err := json.Unmarshal([]byte(note), &dead); err != nil {
		return Dead{Reason: "(its note cannot be read: " + err.Error() + ")"}
	}
	return dead
}
