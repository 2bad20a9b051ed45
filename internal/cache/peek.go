package cache

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Peeked is an entry and the state of its shard, as Peek read them.
type Peeked struct {
	Entry

	Watermark int64  // of the shard
	Token     string // of the shard, as in Tokens
}

// Tokens returns the token of every shard. If a shard still has the same token later, none of its keys has become clean since, and none
// that was dirty has been evicted. One round trip.
func (c *Cache) Tokens(ctx context.Context) ([]string, error) {
	pipe := c.client.Pipeline()
	texts := make([]*redis.StringCmd, c.shards)
	for i := range texts {
		texts[i] = pipe.Get(ctx, c.metaKey(counter.Shard(i)))
	}
	_ = send(ctx, pipe) // each command has its own error
	tokens := make([]string, c.shards)
	for i, text := range texts {
		meta, err := metaOf(text)
		if err != nil {
			return nil, fmt.Errorf("read the token of shard %s: %w", counter.Shard(i), err)
		}
		tokens[i] = meta.token
	}
	return tokens, nil
}

// Peek reads the entries of keys of any shards, in their order. It changes nothing: a key without an entry gets none. Two round trips, or
// three if a key is corrupt.
func (c *Cache) Peek(ctx context.Context, keys []counter.Key) ([]Peeked, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	at := make(map[counter.Shard][]int)
	for i, key := range keys {
		at[c.Shard(key)] = append(at[c.Shard(key)], i)
	}
	pipe := c.client.Pipeline()
	texts := make(map[counter.Shard]*redis.SliceCmd, len(at))
	for shard, places := range at {
		names := make([]string, 1, 1+len(places))
		names[0] = c.metaKey(shard)
		for _, place := range places {
			names = append(names, c.entryKey(keys[place]))
		}
		texts[shard] = pipe.MGet(ctx, names...)
	}
	if err := send(ctx, pipe); err != nil {
		return nil, fmt.Errorf("peek at %d entries: %w", len(keys), err)
	}
	peeked := make([]Peeked, len(keys))
	for shard, places := range at {
		reply := texts[shard].Val()
		meta, err := decodeMeta(reply[0])
		if err != nil {
			return nil, fmt.Errorf("peek at the meta of shard %s: %w", shard, err)
		}
		for i, place := range places {
			p := Peeked{Watermark: meta.watermark, Token: meta.token}
			if text, ok := reply[i+1].(string); ok {
				p.Entry = decodeEntry(keys[place], text)
			} else {
				p.Entry = Entry{Row: counter.Row{Key: keys[place]}, Missing: true}
			}
			peeked[place] = p
		}
	}
	return peeked, c.peekAtMissing(ctx, peeked, at)
}

// peekAtMissing finds the missing keys that hold another type than a string, like findCorrupt, but with one command for each shard:
// there are hardly ever any.
func (c *Cache) peekAtMissing(ctx context.Context, peeked []Peeked, at map[counter.Shard][]int) error {
	pipe := c.client.Pipeline()
	missing := make(map[*redis.IntCmd][]int)
	for _, places := range at {
		var names []string
		var absent []int
		for _, place := range places {
			if peeked[place].Missing {
				names, absent = append(names, c.entryKey(peeked[place].Key)), append(absent, place)
			}
		}
		if len(names) > 0 {
			missing[pipe.Exists(ctx, names...)] = absent
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if err := send(ctx, pipe); err != nil {
		return fmt.Errorf("check missing entries: %w", err)
	}
	for exist, places := range missing {
		if exist.Val() == 0 {
			continue
		}
		entries, names := make([]Entry, len(places)), make([]string, len(places))
		all := make([]int, len(places))
		for i, place := range places {
			entries[i], names[i], all[i] = peeked[place].Entry, c.entryKey(peeked[place].Key), i
		}
		if err := c.findCorrupt(ctx, entries, names, all); err != nil {
			return err
		}
		for i, place := range places {
			peeked[place].Entry = entries[i]
		}
	}
	return nil
}
