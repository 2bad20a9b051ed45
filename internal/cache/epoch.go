package cache

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// SealState is the state of a shard that Seal found.
type SealState string

// The states of a shard.
const (
	Sealed  SealState = "sealed" // it has sealed the open epoch
	Found   SealState = "found"  // an epoch was sealed before and has not been flushed
	Nothing SealState = "none"   // no key is dirty, except set-aside ones
	Early   SealState = "early"  // the open epoch is younger than Taking.MinAge
	Busy    SealState = "busy"   // another owner is flushing the shard
)

// Epoch is a sealed epoch of a shard, taken for a flush.
type Epoch struct {
	Shard counter.Shard
	State SealState // there is something to flush only if it is Sealed or Found

	Read  time.Time // when it was taken
	At    int64     // the same by Redis's clock, in ms
	Since int64     // when its first key was written, by the same clock
	Keys  int
	Due   int // set-aside keys that are due

	NextDue int64 // when the first set-aside key is due, possibly in the past, in ms of Redis's clock; 0: none is set aside

	id, first string // in the form that commit.lua expects
}

// Taking holds the options of Seal.
type Taking struct {
	Owner  string        // the name of the drain; a second owner finds the shard busy
	Lease  time.Duration // how long the owner holds the shard
	MinAge time.Duration // Seal does not take a younger open epoch,
	Keys   int           // unless it has this many keys; 0: whatever its number of keys
}

// Seal takes the shard for a flush and returns the epoch to flush: the sealed one if there is one, otherwise the open one, which it seals.
// One round trip of constant time.
func (c *Cache) Seal(ctx context.Context, shard counter.Shard, t Taking) (Epoch, error) {
	keys := []string{c.metaKey(shard), c.openKey(shard), c.sealedKey(shard), c.retryKey(shard), c.drainKey(shard), c.deadKey(shard)}
	reply, err := sealScript.Run(ctx, c.client, keys, t.Owner, ms(t.Lease), ms(t.MinAge), t.Keys).Slice()
	if err == nil && len(reply) != 8 {
		err = fmt.Errorf("a reply of %d values", len(reply))
	}
	if err != nil {
		return Epoch{}, fmt.Errorf("seal shard %s: %w", shard, err)
	}
	text := func(i int) string { return fmt.Sprint(reply[i]) }
	e := Epoch{Shard: shard, Read: time.Now(), State: SealState(text(0)), id: text(2), first: text(3)}
	var f fields
	e.At, e.Since, e.Keys, e.Due = f.parse(text(1)), f.parse(text(4)), int(f.parse(text(5))), int(f.parse(text(6)))
	e.NextDue = f.parse(text(7))
	if f.err != nil {
		return Epoch{}, fmt.Errorf("seal shard %s: %w", shard, f.err)
	}
	return e, nil
}

// EpochKeys returns about limit keys of a sealed epoch and the next cursor. Begin with cursor 0; next is 0 at the end. It may return a key
// twice. One round trip.
func (c *Cache) EpochKeys(ctx context.Context, e *Epoch, cursor uint64, limit int) (keys []counter.Key, next uint64, err error) {
	var found []string
	if cursor == 0 && e.Keys <= limit {
		found, err = c.client.SMembers(ctx, c.sealedKey(e.Shard)).Result()
	} else {
		found, next, err = c.client.SScan(ctx, c.sealedKey(e.Shard), cursor, "", int64(limit)).Result()
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read the epoch of shard %s: %w", e.Shard, err)
	}
	return keysOf(found), next, nil
}

// Snapshot holds entries of one shard that were read at one moment.
type Snapshot struct {
	Shard     counter.Shard
	Entries   []Entry // one for each key, in their order
	Watermark int64   // of the shard, read before the entries
	Token     string  // for Hydrate, read before the entries

	meta shardMeta // read before the entries
}

// Read reads the entries of keys, all of one shard, with one plain command, and another if some are missing.
func (c *Cache) Read(ctx context.Context, shard counter.Shard, keys []counter.Key) (Snapshot, error) {
	snapshot := Snapshot{Shard: shard}
	if len(keys) == 0 {
		return snapshot, nil
	}
	names := make([]string, 1, 1+len(keys))
	names[0] = c.metaKey(shard)
	for _, key := range keys {
		names = append(names, c.prefixes[shard]+string(key))
	}
	texts, err := c.client.MGet(ctx, names...).Result()
	if err != nil {
		return snapshot, fmt.Errorf("read %d entries of shard %s: %w", len(keys), shard, err)
	}
	if snapshot.meta, err = decodeMeta(texts[0]); err != nil {
		return snapshot, fmt.Errorf("read the meta of shard %s: %w", shard, err)
	}
	snapshot.Watermark, snapshot.Token = snapshot.meta.watermark, snapshot.meta.token
	snapshot.Entries = make([]Entry, len(keys))
	var missing []int
	for i, key := range keys {
		if text, ok := texts[i+1].(string); ok {
			snapshot.Entries[i] = decodeEntry(key, text)
			continue
		}
		snapshot.Entries[i] = Entry{Row: counter.Row{Key: key}, Missing: true}
		missing = append(missing, i)
	}
	return snapshot, c.findCorrupt(ctx, snapshot.Entries, names[1:], missing)
}

// findCorrupt finds the missing keys that hold another type than a string: MGET reports them like keys that do not exist.
func (c *Cache) findCorrupt(ctx context.Context, entries []Entry, names []string, missing []int) error {
	if len(missing) == 0 {
		return nil
	}
	pipe := c.client.Pipeline()
	types := make([]*redis.StatusCmd, len(missing))
	for i, place := range missing {
		types[i] = pipe.Type(ctx, names[place])
	}
	if err := send(ctx, pipe); err != nil {
		return fmt.Errorf("check %d missing entries: %w", len(missing), err)
	}
	for i, place := range missing {
		if kind := types[i].Val(); kind != "none" && kind != "string" { // a string was written just now
			entries[place].Missing, entries[place].Corrupt = false, true
		}
	}
	return nil
}

// shardMeta is the content of a shard's meta key, see entry.lua.
type shardMeta struct {
	open, watermark, first, sealed, requeued int64
	since, sealedSince                       int64 // ms

	token string // for Hydrate
}

// decodeMeta reads a shard's meta; nil: there is none yet.
func decodeMeta(value any) (shardMeta, error) {
	text, ok := value.(string)
	if !ok {
		return shardMeta{}, nil
	}
	f := fields{rest: text}
	var m shardMeta
	open, rest, _ := strings.Cut(text, " ")
	_, rest, _ = strings.Cut(rest, " ")
	watermark, _, _ := strings.Cut(rest, " ")
	m.token = watermark + ":" + open
	m.open, m.since, m.watermark, m.first = f.nextID(), f.int(), f.nextID(), f.nextID()
	_ = f.word() // the incarnation
	m.sealed, m.sealedSince, m.requeued = f.nextID(), f.int(), f.nextID()
	return m, f.err
}

// Commit drops a sealed epoch and makes its ID the shard's watermark. Call it once Postgres has a state of each of its keys or the key has
// been set aside. left is the number of keys written meanwhile. If another epoch is sealed, or Redis was restarted, it does nothing and
// done is false: the sealed epoch must be flushed again. It may be repeated. One round trip of constant time.
func (c *Cache) Commit(ctx context.Context, e *Epoch) (left int64, done bool, err error) {
	return c.commit(ctx, e, nil)
}

// Drop removes keys that Postgres has from a sealed epoch, so that a later flush repeats less. It reports false and may be repeated
// like Commit.
func (c *Cache) Drop(ctx context.Context, e *Epoch, keys []counter.Key) (done bool, err error) {
	if len(keys) == 0 {
		return true, nil
	}
	_, done, err = c.commit(ctx, e, members(keys))
	return done, err
}

func (c *Cache) commit(ctx context.Context, e *Epoch, keys []any) (left int64, done bool, err error) {
	names := []string{c.metaKey(e.Shard), c.sealedKey(e.Shard), c.openKey(e.Shard), c.deadKey(e.Shard)}
	left, err = commitScript.Run(ctx, c.client, names, append([]any{e.id, e.first}, keys...)...).Int64()
	if err != nil {
		return 0, false, fmt.Errorf("commit the epoch of shard %s: %w", e.Shard, err)
	}
	return max(left, 0), left >= 0, nil
}

// Extend renews the lease of a shard.
func (c *Cache) Extend(ctx context.Context, shard counter.Shard, lease time.Duration) error {
	if err := c.client.PExpire(ctx, c.drainKey(shard), lease).Err(); err != nil {
		return fmt.Errorf("extend the lease of shard %s: %w", shard, err)
	}
	return nil
}

// Release ends the owner's lease of a shard, if the owner still holds it.
func (c *Cache) Release(ctx context.Context, shard counter.Shard, owner string) error {
	if err := releaseScript.Run(ctx, c.client, []string{c.drainKey(shard)}, owner).Err(); err != nil {
		return fmt.Errorf("release shard %s: %w", shard, err)
	}
	return nil
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
