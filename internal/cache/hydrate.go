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

// NoGeneration is the generation of a shard that has none, because Redis is full. Hydrate takes it for Stale.
const NoGeneration = "-"

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
	if !c.cluster || len(bases) == 0 {
		return c.hydrate(ctx, bases)
	}
	at := make(map[counter.Shard][]int)
	for i, b := range bases {
		at[c.Shard(b.Key)] = append(at[c.Shard(b.Key)], i)
	}
	out := make([]Hydration, len(bases))
	for _, places := range at {
		part := make([]Base, len(places))
		for i, place := range places {
			part[i] = bases[place]
		}
		done, err := c.hydrate(ctx, part)
		if err != nil {
			return nil, err
		}
		for i, place := range places {
			out[place] = done[i]
		}
	}
	return out, nil
}

// declared are the keys of key's shard that a script on entries reads and writes beside them: a cluster has to be told, so
// that it runs no script of which a part of the keys has moved to another node.
func (c *Cache) declared(key counter.Key) []string {
	s := c.Shard(key)
	return []string{dirtyKey(s), genKey(s)}
}

// shardKeys is how many keys declared returns.
const shardKeys = 2

func (c *Cache) hydrate(ctx context.Context, bases []Base) ([]Hydration, error) {
	keys := make([]string, len(bases), len(bases)+shardKeys)
	args := make([]any, 0, 2+5*len(bases))
	args = append(args, ms(c.cleanTTL), ms(absentTTL))
	for i, b := range bases {
		keys[i] = c.entryKey(b.Key)
		state, value, version, lineage := "-", int64(0), int64(0), int64(0)
		if b.Found {
			state, value, version, lineage = "r", b.Row.Value, b.Row.Version, b.Row.Lineage
			if b.Row.Deleted {
				state, value = "x", 0
			}
		}
		args = append(args, b.Generation, strconv.FormatInt(value, 10), strconv.FormatInt(version, 10), state,
			strconv.FormatInt(lineage, 10))
	}
	if c.cluster {
		keys = append(keys, c.declared(bases[0].Key)...)
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
