package cache

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Base is the row of a key, for Hydrate.
type Base struct {
	Key   counter.Key
	Row   counter.Row // meaningless without Found
	Found bool
	Token string // of the shard, read before the row: Outcome.Token or Snapshot.Token
}

// Hydration is the result of Hydrate for one Base.
type Hydration byte

// The results of Hydrate.
const (
	Hydrated     Hydration = 'y' // the entry is complete
	Stale        Hydration = 's' // a flush was completed meanwhile: read Postgres again
	BaseOverflow Hydration = 'o' // the sum of base and unsynced increments does not fit into 64 bits
	CorruptEntry Hydration = 'e' // the key holds something that is not an entry
)

// maxHydrate bounds the keys of one round trip, which blocks Redis for 2 to 8 µs a key.
const maxHydrate = 200

// Hydrate puts bases into their entries and returns one result for each. It leaves complete entries alone, so it may be repeated. One round
// trip for each 200 keys.
func (c *Cache) Hydrate(ctx context.Context, bases []Base) ([]Hydration, error) {
	done, _, err := c.Rebase(ctx, bases)
	return done, err
}

// hydration is one call of hydrate.lua: bases of one shard with the same token.
type hydration struct {
	call

	places []int
}

// Rebase is like Hydrate, and also returns the entries that got their base.
func (c *Cache) Rebase(ctx context.Context, bases []Base) (done []Hydration, rebased []Entry, err error) {
	calls := c.hydrations(bases)
	for rest := calls; len(rest) > 0; {
		n, keys := 0, 0
		pipe := c.client.Pipeline()
		for n < len(rest) && (n == 0 || keys+len(rest[n].places) <= maxHydrate) {
			rest[n].queue(ctx, pipe)
			keys += len(rest[n].places)
			n++
		}
		if err := send(ctx, pipe); err != nil && !isReply(err) { // the other calls would time out, too
			return nil, nil, fmt.Errorf("hydrate %d keys: %w", len(bases), err)
		}
		rest = rest[n:] // each call has its own error
	}
	done = make([]Hydration, len(bases))
	for _, h := range calls {
		reply, err := h.reply(ctx, c.client).StringSlice()
		if err == nil && len(reply) != len(h.places) {
			err = fmt.Errorf("redis answered for %d", len(reply))
		}
		if err != nil {
			return nil, nil, fmt.Errorf("hydrate %d keys: %w", len(h.places), err)
		}
		for i, place := range h.places {
			if len(reply[i]) == 1 {
				done[place] = Hydration(reply[i][0])
				continue
			}
			done[place] = Hydrated
			rebased = append(rebased, decodeEntry(bases[place].Key, reply[i]))
		}
	}
	return done, rebased, nil
}

// hydrations groups bases into calls.
func (c *Cache) hydrations(bases []Base) []*hydration {
	type group struct {
		shard counter.Shard
		token string
	}
	places := make(map[group][]int)
	for i, b := range bases {
		g := group{c.Shard(b.Key), b.Token}
		places[g] = append(places[g], i)
	}
	var calls []*hydration
	for g, all := range places {
		for part := range slices.Chunk(all, maxHydrate) {
			h := &hydration{places: part, call: call{script: hydrateScript}}
			h.keys = append(make([]string, 0, 2+len(part)), c.metaKey(g.shard), c.deadKey(g.shard))
			h.args = append(make([]any, 0, 3+len(part)), g.token, ms(c.cleanTTL), ms(absentTTL))
			for _, place := range part {
				h.keys = append(h.keys, c.entryKey(bases[place].Key))
				h.args = append(h.args, bases[place].row())
			}
			calls = append(calls, h)
		}
	}
	return calls
}

// row returns the base as an argument of hydrate.lua.
func (b *Base) row() string {
	if !b.Found {
		return "-"
	}
	value, state := b.Row.Value, " r"
	if b.Row.Deleted {
		value, state = 0, " x"
	}
	text := strconv.AppendInt(make([]byte, 0, 48), value, 10)
	text = strconv.AppendInt(append(text, ' '), b.Row.Version, 10)
	text = strconv.AppendInt(append(text, ' '), b.Row.Lineage, 10)
	return string(append(text, state...))
}
