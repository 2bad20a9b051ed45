package cache

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Base is what Postgres has of a key, on its way into the key's entry.
type Base struct {
	Key   counter.Key
	Row   counter.Row // meaningless without Found
	Found bool
	Token string // of the shard, from before Postgres was asked: Outcome.Token or Snapshot.Token
}

// Hydration says what Hydrate did with one Base.
type Hydration byte

// What Hydrate may answer.
const (
	Hydrated     Hydration = 'y' // the entry is complete
	Stale        Hydration = 's' // a flush was completed meanwhile: ask Postgres again
	BaseOverflow Hydration = 'o' // base and unsynced operations do not add up to a 64-bit integer
	CorruptEntry Hydration = 'e' // the key holds something that is not an entry
)

// maxHydrate bounds what is hydrated in one round trip: Redis does nothing else meanwhile, and each entry takes it 2 to 8 µs.
const maxHydrate = 200

// Hydrate brings bases into their entries, and answers for each. Entries that are complete are left alone, so it may be done
// twice. It blocks for some round trips, with at most 200 keys in each.
func (c *Cache) Hydrate(ctx context.Context, bases []Base) ([]Hydration, error) {
	done, _, err := c.hydrate(ctx, bases)
	return done, err
}

// Rebase is Hydrate for bases of one shard, and returns those entries that it has given their base, as they are now.
func (c *Cache) Rebase(ctx context.Context, bases []Base) (done []Hydration, rebased []Entry, err error) {
	return c.hydrate(ctx, bases)
}

// hydration is one call of hydrate.lua: bases of one shard with the same token.
type hydration struct {
	places []int
	keys   []string
	args   []any
	reply  *redis.Cmd
}

func (c *Cache) hydrate(ctx context.Context, bases []Base) ([]Hydration, []Entry, error) {
	if len(bases) == 0 {
		return nil, nil, nil
	}
	calls := c.hydrations(bases)
	for rest := calls; len(rest) > 0; {
		n, keys := 0, 0
		pipe := c.client.Pipeline()
		for n < len(rest) && (n == 0 || keys+len(rest[n].places) <= maxHydrate) {
			h := rest[n]
			h.reply = hydrateScript.EvalSha(ctx, pipe, h.keys, h.args...)
			keys += len(h.places)
			n++
		}
		err := send(ctx, pipe)
		if err != nil && !isReply(err) { // the others would wait for the same
			return nil, nil, fmt.Errorf("hydrate %d keys: %w", len(bases), err)
		}
		rest = rest[n:] // each call has its own error
	}
	done := make([]Hydration, len(bases))
	var rebased []Entry
	for _, h := range calls {
		reply, err := h.reply.StringSlice()
		if redis.HasErrorPrefix(err, "NOSCRIPT") {
			reply, err = hydrateScript.Eval(ctx, c.client, h.keys, h.args...).StringSlice()
		}
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

// hydrations sorts bases into calls.
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
			h := &hydration{places: part, keys: []string{c.metaKey(g.shard), c.deadKey(g.shard)}}
			h.keys = slices.Grow(h.keys, len(part))
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

// row is the argument of a base.
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

// IsFull reports that Redis had no room for a call, which it refused as a whole.
func IsFull(err error) bool { return isFull(err) }
