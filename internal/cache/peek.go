package cache

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Entry is a dirty entry as Peek saw it.
type Entry struct {
	counter.Row

	// DirtySince is when its first unsynced write came, ms of Redis's clock. Later than the peek: it waits for a retry.
	DirtySince int64
	// Parked says that it was put aside since that write, until DirtySince: when it became dirty is no longer known.
	Parked bool

	Missing     bool // the key is dirty but has no entry: somebody deleted it by hand
	Foreign     bool // the key holds something that is not an entry
	BaseUnknown bool // the base must be brought in with Hydrate before it can be flushed

	// Life names the run of unsynced writes that the state is made of, for Ack and Reconcile; "" where nothing was written
	// since the last ack. Its number is Row.Lineage, and Row.Base the version that it began from.
	Life string

	text string // as it is in Redis
}

// Peeked is what a peek of one shard saw.
type Peeked struct {
	Shard      counter.Shard
	Entries    []Entry
	At         int64  // when, ms of Redis's clock
	Generation string // for Hydrate
	Busy       bool   // another drains the shard; there are no entries then
}

// Peek reads the entries of those keys, all of one shard, that are dirty. Nothing is removed. Keys that wait for a retry
// or are dead are left out unless parked is true.
func (c *Cache) Peek(ctx context.Context, shard counter.Shard, keys []counter.Key, parked bool) (Peeked, error) {
	args := make([]any, 4, 4+len(keys))
	args[0], args[1], args[2], args[3] = "0", "0", "", ""
	if parked {
		args[1] = "1"
	}
	for _, k := range keys {
		args = append(args, string(k))
	}
	return c.peek(ctx, shard, args)
}

// PeekOldest reads up to limit entries of the shard that have been dirty for longest, before the given time (ms of
// Redis's clock; 0: now), and takes the shard for owner for the given time, so that two drains do not do the same work.
func (c *Cache) PeekOldest(ctx context.Context, shard counter.Shard, limit int, before int64, owner string, lease time.Duration,
) (Peeked, error) {
	return c.peek(ctx, shard, []any{strconv.Itoa(limit), strconv.FormatInt(before, 10), owner, ms(lease)})
}

// Release ends what PeekOldest took, if it still is owner's.
func (c *Cache) Release(ctx context.Context, shard counter.Shard, owner string) error {
	if err := releaseScript.Run(ctx, c.client, []string{drainKey(shard)}, owner).Err(); err != nil {
		return fmt.Errorf("release shard %s: %w", shard, err)
	}
	return nil
}

func (c *Cache) peek(ctx context.Context, shard counter.Shard, args []any) (Peeked, error) {
	reply, err := peekScript.Run(ctx, c.client, []string{dirtyKey(shard)}, args...).StringSlice()
	if err != nil {
		return Peeked{}, fmt.Errorf("peek shard %s: %w", shard, err)
	}
	p, err := decodePeeked(reply)
	if err != nil {
		return Peeked{}, fmt.Errorf("peek shard %s: %w", shard, err)
	}
	p.Shard = shard
	return p, nil
}

// entryFields is how many strings the reply of peek.lua has for each entry, after the two of its head.
const entryFields = 3

// incarnationDigits is how many digits of a life name the incarnation of Redis; its number follows.
const incarnationDigits = 8

func decodePeeked(reply []string) (Peeked, error) {
	var p Peeked
	var err error
	if len(reply) == 0 || (len(reply) > 1 && (len(reply)-2)%entryFields != 0) {
		return p, fmt.Errorf("a reply of %d strings", len(reply))
	}
	if p.At, err = strconv.ParseInt(reply[0], 10, 64); err != nil {
		return p, fmt.Errorf("the time: %w", err)
	}
	if len(reply) == 1 {
		p.Busy = true
		return p, nil
	}
	p.Generation = reply[1]
	rest := reply[2:]
	p.Entries = make([]Entry, len(rest)/entryFields)
	for i := range p.Entries {
		if p.Entries[i], err = decodeEntry(rest[i*entryFields], rest[i*entryFields+1], rest[i*entryFields+2]); err != nil {
			return p, fmt.Errorf("entry %q: %w", rest[i*entryFields], err)
		}
	}
	return p, nil
}

// decodeEntry reads what peek.lua and look.lua say of an entry.
func decodeEntry(key, text, score string) (Entry, error) {
	since, err := strconv.ParseFloat(score, 64) // a sorted set's scores are doubles
	if err != nil {
		return Entry{}, fmt.Errorf("dirty since: %w", err)
	}
	none := Entry{Row: counter.Row{Key: counter.Key(key)}, DirtySince: int64(since), Parked: since != math.Trunc(since)}
	if text == "m" {
		none.Missing = true
		return none, nil
	}
	e := none
	e.text = text
	if !decodeState(&e, text) {
		none.Foreign = true
		return none, nil
	}
	return e, nil
}

// decodeState reads the text of an entry, see entry.lua. It reports false if it is none.
func decodeState(e *Entry, text string) bool {
	value, rest, _ := strings.Cut(text, " ")
	version, rest, _ := strings.Cut(rest, " ")
	f := fields{}
	e.Value, e.Version = f.parse(value), f.parse(version)
	base := ""
	for rest != "" {
		var field string
		if field, rest, _ = strings.Cut(rest, " "); field == "" {
			continue
		}
		switch field[0] {
		case 'x':
			e.Deleted = true
		case 'u':
			e.BaseUnknown = true
		case 'e':
			e.Life = field[1:]
		case 'b':
			base = field[1:]
		}
	}
	if len(e.Life) <= incarnationDigits || base == "" {
		e.Life = ""
	} else {
		e.Lineage, e.Base = f.parse(e.Life[incarnationDigits:]), f.parse(base)
	}
	return f.err == nil
}

// Committed is a key whose state Postgres has.
type Committed struct {
	Key     counter.Key
	Version int64
	Life    string // Entry.Life
	Missing bool   // there was no entry, so there is nothing to flush: Version means nothing

	text string // Entry.text; "": made from the others
}

// Committed is what to ack when Postgres has the entry.
func (e Entry) Committed() Committed {
	return Committed{Key: e.Key, Version: e.Version, Life: e.Life, Missing: e.Missing, text: e.text}
}

// texts are the entry as it was peeked, and as it becomes if that is what it still is, see ack.lua.
func (k *Committed) texts() (peeked, clean string) {
	if k.Missing {
		return "", ""
	}
	if k.text == "" {
		peeked = "0 " + strconv.FormatInt(k.Version, 10)
		if k.Life != "" {
			peeked += " e" + k.Life
		}
		return peeked, ""
	}
	const deleted = " x"
	end := strings.IndexByte(k.text, ' ') + 1
	if next := strings.IndexByte(k.text[end:], ' '); next >= 0 {
		end += next
	} else {
		end = len(k.text)
	}
	if rest := k.text[end:]; rest == deleted || strings.HasPrefix(rest, deleted+" ") {
		end += len(deleted)
	}
	return k.text, k.text[:end]
}

// Ack clears the dirty marks of keys, all of one shard, which still have the version that was committed. It returns those
// that were written since they were peeked at the given time: they stay dirty and need another flush. It may be done twice.
func (c *Cache) Ack(ctx context.Context, shard counter.Shard, peekedAt int64, keys []Committed) ([]counter.Key, error) {
	args := make([]any, 2, 2+3*len(keys))
	args[0], args[1] = strconv.FormatInt(peekedAt, 10), ms(c.cleanTTL)
	for i := range keys {
		peeked, clean := keys[i].texts()
		args = append(args, string(keys[i].Key), peeked, clean)
	}
	reply, err := ackScript.Run(ctx, c.client, []string{dirtyKey(shard)}, args...).StringSlice()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("ack %d keys of shard %s: %w", len(keys), shard, err)
	}
	again := make([]counter.Key, len(reply))
	for i, k := range reply {
		again[i] = counter.Key(k)
	}
	return again, nil
}
