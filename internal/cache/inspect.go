package cache

import (
	"context"
	"fmt"
	"slices"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Inspected is an entry and the state of its key.
type Inspected struct {
	Entry

	Dirty    bool // also if it is set aside or dead
	Dead     bool
	RetryAt  int64 // when a flush may take the set-aside key, in ms of Redis's clock; 0: it is not set aside, or it is dead
	Stranded bool  // dirty, but neither in an epoch nor set aside: it was removed by hand, and no flush finds it
}

// Condition is where a key is on its way to Postgres.
type Condition int

// The conditions.
const (
	Clean   Condition = iota // Postgres has it
	Pending                  // dirty: it waits for a flush or for its retry
	IsDead                   // Postgres refused it in all attempts
)

// Condition returns the condition of the key.
func (in *Inspected) Condition() Condition {
	switch {
	case in.Dead:
		return IsDead
	case in.Dirty, in.Corrupt:
		return Pending
	}
	return Clean
}

// Inspect reads up to ScanPage entries and the states of their keys, in the order of keys. It takes two round trips for each shard, or a
// few more.
func (c *Cache) Inspect(ctx context.Context, keys []counter.Key) ([]Inspected, error) {
	at := make(map[counter.Shard][]int)
	for i, key := range keys {
		at[c.Shard(key)] = append(at[c.Shard(key)], i)
	}
	out := make([]Inspected, len(keys))
	for shard, places := range at {
		part := make([]counter.Key, len(places))
		for i, place := range places {
			part[i] = keys[place]
		}
		inspected, err := c.inspect(ctx, shard, part)
		if err != nil {
			return nil, err
		}
		for i, place := range places {
			out[place] = inspected[i]
		}
	}
	return out, nil
}

func (c *Cache) inspect(ctx context.Context, shard counter.Shard, keys []counter.Key) ([]Inspected, error) {
	snapshot, err := c.Read(ctx, shard, keys)
	if err != nil {
		return nil, err
	}
	pipe := c.client.Pipeline()
	open := pipe.SMIsMember(ctx, c.openKey(shard), members(keys)...) // before sealed, where its keys move to
	sealed := pipe.SMIsMember(ctx, c.sealedKey(shard), members(keys)...)
	retry := pipe.ZMScore(ctx, c.retryKey(shard), texts(keys)...)
	dead := pipe.HMGet(ctx, c.deadKey(shard), texts(keys)...)
	if err := send(ctx, pipe); err != nil {
		return nil, fmt.Errorf("inspect %d keys of shard %s: %w", len(keys), shard, err)
	}
	out := make([]Inspected, len(keys))
	for i, e := range snapshot.Entries {
		in := Inspected{Entry: e, Dead: dead.Val()[i] != nil, RetryAt: int64(retry.Val()[i])}
		member := open.Val()[i] || sealed.Val()[i] || retry.Val()[i] != 0 || in.Dead
		in.Dirty = e.Dirty(snapshot.Watermark) || (member && (e.Missing || e.Corrupt))
		in.Stranded = in.Dirty && !member
		out[i] = in
	}
	return out, c.readStrandedAgain(ctx, shard, out)
}

// readStrandedAgain reads stranded keys again. A key that left its epoch since it was read, by a flush or a write, has another entry or is
// clean now. A key that no flush finds has not changed.
func (c *Cache) readStrandedAgain(ctx context.Context, shard counter.Shard, inspected []Inspected) error {
	var keys []counter.Key
	var places []int
	for i := range inspected {
		if inspected[i].Stranded {
			keys, places = append(keys, inspected[i].Key), append(places, i)
		}
	}
	again, err := c.Read(ctx, shard, keys)
	if err != nil {
		return err
	}
	for i, place := range places {
		in, e := &inspected[place], again.Entries[i]
		dirty := e.Dirty(again.Watermark)
		in.Stranded = dirty && e.text == in.text
		in.Entry, in.Dirty = e, dirty
	}
	return nil
}

// Repairing is what Repair does to an entry.
type Repairing string

// The repairs.
const (
	MarkAgain Repairing = "mark" // put it into the open epoch, so that a flush writes it to Postgres
	DropStale Repairing = "drop" // remove it, so that its next use reads Postgres
)

// maxRepair bounds one call of repair.lua.
const maxRepair = 200

// Repair changes the entries of one shard that have not changed since they were read, and reports for each entry whether it did. It may be
// repeated. One atomic step for each 200 entries.
func (c *Cache) Repair(ctx context.Context, shard counter.Shard, how Repairing, entries []Inspected) ([]bool, error) {
	done := make([]bool, 0, len(entries))
	for part := range slices.Chunk(entries, maxRepair) {
		names, args := []string{c.metaKey(shard), c.openKey(shard), c.retryKey(shard), c.deadKey(shard)}, []any{string(how)}
		for i := range part {
			names, args = append(names, c.entryKey(part[i].Key)), append(args, string(part[i].Key), part[i].text)
		}
		reply, err := repairScript.Run(ctx, c.client, names, args...).Text()
		if err == nil && len(reply) != len(part) {
			err = fmt.Errorf("redis answered for %d", len(reply))
		}
		if err != nil {
			return nil, fmt.Errorf("repair %d entries of shard %s: %w", len(part), shard, err)
		}
		for _, letter := range []byte(reply) {
			done = append(done, letter == 'y')
		}
	}
	return done, nil
}
