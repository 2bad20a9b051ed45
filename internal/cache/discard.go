package cache

import (
	"context"
	"fmt"
	"strconv"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Discarded says what Rewind or Remove did.
type Discarded byte

// What Rewind and Remove may answer. Nothing has changed but with DiscardDone.
const (
	DiscardDone    Discarded = 'y'
	DiscardNotDead Discarded = 'd' // the key is not dead, or not any more
	DiscardWritten Discarded = 'w' // the entry is not the one given: it was written meanwhile
)

// Rewind replaces the entry of a dead key by row, if it still is the one shown (which must be there: neither Missing nor
// Corrupt). The key stays dirty and dead. The version of row must be higher than any that a flush under way may have of
// the key. In one round trip.
func (c *Cache) Rewind(ctx context.Context, shown Entry, row counter.Row) (Discarded, error) {
	value, deleted := row.Value, "0"
	if row.Deleted {
		value, deleted = 0, "1"
	}
	return c.discard(ctx, shown, "rewind", strconv.FormatInt(value, 10), strconv.FormatInt(row.Version, 10), deleted)
}

// Remove takes a dead key out of Redis, if its entry still is the one shown: the entry and the note. The
// next to need the counter reads Postgres; what was read before is too old to hydrate from. In one round trip.
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

// state is the entry as discard.lua compares it.
func (e *Entry) state() string {
	switch {
	case e.Corrupt:
		return "e"
	case e.Missing:
		return "m"
	}
	state := strconv.FormatInt(e.Value, 10) + " " + strconv.FormatInt(e.Version, 10)
	if e.BaseUnknown {
		state += " u"
	}
	return state
}
