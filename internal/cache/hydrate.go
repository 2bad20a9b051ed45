package cache

import (
	"context"
	"fmt"
	"strconv"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Base is what Postgres has of a key, on its way into the key's entry.
type Base struct {
	Key        counter.Key
	Row        counter.Row // meaningless without Found
	Found      bool
	Generation string // of the shard, from before Postgres was asked: Outcome.Generation or Peeked.Generation
}

// Hydration says what Hydrate did with one Base.
type Hydration byte

// What Hydrate may answer.
const (
	Hydrated     Hydration = 'y' // the entry is complete
	Stale        Hydration = 's' // a flush was completed meanwhile: ask Postgres again
	BaseOverflow Hydration = 'o' // base and unsynced operations do not add up to a 64-bit integer
	ForeignEntry Hydration = 'e' // the key holds something that is not an entry
)

// Hydrate brings bases into their entries, in one call of one round trip (on a cluster, one call for each shard), and
// answers one letter for each. Entries that are complete are left alone, so it may be done twice.
func (c *Cache) Hydrate(ctx context.Context, bases []Base) ([]Hydration, error) {
	if !c.cluster {
		return c.hydrate(ctx, bases)
	}
	out := make([]Hydration, len(bases))
	for i := range bases { // cold keys on a cluster are few: one call each is good enough
		one, err := c.hydrate(ctx, bases[i:i+1])
		if err != nil {
			return nil, err
		}
		out[i] = one[0]
	}
	return out, nil
}

func (c *Cache) hydrate(ctx context.Context, bases []Base) ([]Hydration, error) {
	keys := make([]string, len(bases))
	args := make([]any, 0, 2+4*len(bases))
	args = append(args, ms(c.cleanTTL), ms(absentTTL))
	for i, b := range bases {
		keys[i] = c.entryKey(b.Key)
		state, value, version := "-", int64(0), int64(0)
		if b.Found {
			state, value, version = "r", b.Row.Value, b.Row.Version
			if b.Row.Deleted {
				state, value = "x", 0
			}
		}
		args = append(args, b.Generation, strconv.FormatInt(value, 10), strconv.FormatInt(version, 10), state)
	}
	reply, err := hydrateScript.Run(ctx, c.client, keys, args...).Text()
	if err != nil {
		return nil, fmt.Errorf("hydrate %d keys: %w", len(bases), err)
	}
	if len(reply) != len(bases) {
		return nil, fmt.Errorf("hydrate %d keys: redis answered for %d", len(bases), len(reply))
	}
	return []Hydration(reply), nil
}
