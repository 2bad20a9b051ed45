package cache

import (
	"context"
	"fmt"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Discarded is the result of Rewind or Remove.
type Discarded byte

// The results of Rewind and Remove. Only with DiscardDone something has changed.
const (
	DiscardDone    Discarded = 'y'
	DiscardNotDead Discarded = 'd' // the key is not dead, or no longer
	DiscardWritten Discarded = 'w' // the entry has been written since it was shown
)

// Rewind replaces the entry of a dead key by row, if the entry has not changed since it was shown. shown must be neither Missing nor
// Corrupt. The key stays dirty and dead. The version of row must be higher than any that a flush in progress may write. One round trip.
func (c *Cache) Rewind(ctx context.Context, shown Entry, row counter.Row) (Discarded, error) {
	value, deleted := row.Value, "0"
	if row.Deleted {
		value, deleted = 0, "1"
	}
	return c.discard(ctx, shown, "rewind", itoa(value), itoa(row.Version), deleted)
}

// Remove removes the entry and the note of a dead key, if the entry has not changed since it was shown. The next use of the counter reads
// Postgres; rows read before can no longer be hydrated. One round trip.
func (c *Cache) Remove(ctx context.Context, shown Entry) (Discarded, error) {
	return c.discard(ctx, shown, "remove")
}

func (c *Cache) discard(ctx context.Context, shown Entry, args ...any) (Discarded, error) {
	args = append([]any{string(shown.Key), shown.state()}, args...)
	shard := c.Shard(shown.Key)
	keys := []string{c.metaKey(shard), c.openKey(shard), c.sealedKey(shard), c.deadKey(shard), c.entryKey(shown.Key)}
	reply, err := discardScript.Run(ctx, c.client, keys, args...).Text()
	if err == nil && len(reply) != 1 {
		err = fmt.Errorf("redis answered %q", reply)
	}
	if err != nil {
		return 0, fmt.Errorf("discard %q: %w", shown.Key, err)
	}
	return Discarded(reply[0]), nil
}

// state returns the entry in the form that discard.lua compares.
func (e *Entry) state() string {
	switch {
	case e.Corrupt:
		return "e"
	case e.Missing:
		return "m"
	}
	state := itoa(e.Value) + " " + itoa(e.Version)
	if e.BaseUnknown {
		state += " u"
	}
	return state
}
