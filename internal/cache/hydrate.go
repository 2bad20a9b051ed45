package cache

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Base is what Postgres has for a key: a row, or nothing. Hydrate and Check take it.
type Base struct {
	Key   counter.Key
	Row   counter.Row // meaningless without Found
	Found bool
	Token string // from before the row was read: Outcome.Token, or for Hydrate Snapshot.Token
}

// Hydration is the result of Hydrate or Check for one Base.
type Hydration byte

// The results of Hydrate.
const (
	Hydrated     Hydration = 'y' // the entry is complete
	Renewed      Hydration = 'n' // only from Check: the entry has become its row
	Stale        Hydration = 's' // the token has changed since: read Postgres again
	BaseOverflow Hydration = 'o' // the sum of base and unsynced increments does not fit into 64 bits
	CorruptEntry Hydration = 'e' // the key holds something that is not an entry
)

// maxHydrate bounds the keys of one round trip, which blocks Redis for 2 to 8 µs a key.
const maxHydrate = 200

// Hydrate puts bases into their entries and returns one result for each. It leaves complete entries alone, so it may be repeated. It makes
// one round trip per 200 keys or fewer.
func (c *Cache) Hydrate(ctx context.Context, bases []Base) ([]Hydration, error) {
	results, _, err := c.Rebase(ctx, bases)
	return results, err
}

// Check compares unchecked entries with their rows and returns one result for each: Hydrated, Renewed or Stale. An entry that is older
// than its row becomes the row. It leaves all other entries alone, so it may be repeated. It makes one round trip per 200 keys or fewer.
func (c *Cache) Check(ctx context.Context, bases []Base) ([]Hydration, error) {
	results, _, err := c.fill(ctx, checkScript, bases)
	return results, err
}

// hydration is one call of hydrate.lua or check.lua: bases of one shard with the same token.
type hydration struct {
	call

	indexes []int
}

// Rebase is like Hydrate, and also returns the entries that got their base.
func (c *Cache) Rebase(ctx context.Context, bases []Base) (results []Hydration, rebased []Entry, err error) {
	return c.fill(ctx, hydrateScript, bases)
}

// fill calls a script with bases.
func (c *Cache) fill(ctx context.Context, script *redis.Script, bases []Base) (results []Hydration, rebased []Entry, err error) {
	calls := c.hydrations(script, bases)
	for rest := calls; len(rest) > 0; {
		n, keys := 0, 0
		pipe := c.client.Pipeline()
		for n < len(rest) && (n == 0 || keys+len(rest[n].indexes) <= maxHydrate) {
			rest[n].queue(ctx, pipe)
			keys += len(rest[n].indexes)
			n++
		}
		if err := send(ctx, pipe); err != nil && !isReply(err) { // not a reply of Redis, so the remaining calls would fail as well
			return nil, nil, fmt.Errorf("hydrate %d keys: %w", len(bases), err)
		}
		rest = rest[n:] // errors in replies are handled for each call below
	}
	results = make([]Hydration, len(bases))
	for _, h := range calls {
		reply, err := h.reply(ctx, c.client).StringSlice()
		if err == nil && len(reply) != len(h.indexes) {
			err = fmt.Errorf("redis returned %d results", len(reply))
		}
		if err != nil {
			return nil, nil, fmt.Errorf("hydrate %d keys: %w", len(h.indexes), err)
		}
		for i, index := range h.indexes {
			if len(reply[i]) == 1 {
				results[index] = Hydration(reply[i][0])
				continue
			}
			results[index] = Hydrated
			rebased = append(rebased, decodeEntry(bases[index].Key, reply[i]))
		}
	}
	return results, rebased, nil
}

// hydrations groups bases into calls.
func (c *Cache) hydrations(script *redis.Script, bases []Base) []*hydration {
	type group struct {
		shard counter.Shard
		token string
	}
	indexes := make(map[group][]int)
	for i, b := range bases {
		g := group{c.Shard(b.Key), b.Token}
		indexes[g] = append(indexes[g], i)
	}
	var calls []*hydration
	for g, all := range indexes {
		for part := range slices.Chunk(all, maxHydrate) {
			h := &hydration{indexes: part, call: call{script: script}}
			h.keys = append(make([]string, 0, 2+len(part)), c.metaKey(g.shard), c.deadKey(g.shard))
			h.args = append(make([]any, 0, 3+len(part)), g.token, ms(c.cleanTTL), ms(absentTTL))
			for _, index := range part {
				h.keys = append(h.keys, c.entryKey(bases[index].Key))
				h.args = append(h.args, bases[index].row())
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
