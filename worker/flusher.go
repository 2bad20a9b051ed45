package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
)

// maxRebaseTries bounds how often the bases of entries are read again because a flush was completed meanwhile.
const maxRebaseTries = 3

// Store is the Postgres side, see package store.
type Store interface {
	Upsert(ctx context.Context, rows []counter.Row) (ahead []counter.Row, err error)
	Read(ctx context.Context, keys []counter.Key) (map[counter.Key]counter.Row, error)
	Purge(ctx context.Context, olderThan time.Duration, limit int) (removed int64, err error)
	Available() bool
	Up() bool
}

// Hints is told of keys that need another flush. It must not block.
type Hints interface {
	Offer(key counter.Key, shard counter.Shard, backlog int64)
}

// Refusals is told of rows that Postgres refused although they were alone in their statement.
type Refusals interface {
	Refused(ctx context.Context, row counter.Row, reason error) error
}

// Flusher brings dirty entries to Postgres. It is safe for concurrent use, in this process and in others.
type Flusher struct {
	cache    *cache.Cache
	store    Store
	hints    Hints
	refusals Refusals
	metrics  *metrics
	logger   *slog.Logger
	batch    int
}

// FlushKeys flushes those of keys, all of one shard and at most 10,000, that are dirty and due. Keys that were written
// meanwhile are offered to the hints again.
func (f *Flusher) FlushKeys(ctx context.Context, shard counter.Shard, keys []counter.Key) error {
	return f.flushKeys(ctx, shard, keys, false)
}

// flushKeys is FlushKeys; with parked, also for keys that were put aside.
func (f *Flusher) flushKeys(ctx context.Context, shard counter.Shard, keys []counter.Key, parked bool) error {
	peeked, err := f.cache.Peek(ctx, shard, keys, parked)
	if err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	done, err := f.flush(ctx, peeked)
	for _, key := range done.again {
		f.hints.Offer(key, shard, 1)
	}
	if err != nil {
		return fmt.Errorf("flush shard %s: %w", shard, err)
	}
	return nil
}

// flushed is what a flush achieved, also when it ended with an error.
type flushed struct {
	settled int           // entries that need no more looking at now: committed, or put aside
	rows    int64         // rows that Postgres took
	again   []counter.Key // entries that were written meanwhile
}

func (d *flushed) add(more flushed) {
	d.settled += more.settled
	d.rows += more.rows
	d.again = append(d.again, more.again...)
}

// flush brings peeked entries to Postgres.
func (f *Flusher) flush(ctx context.Context, p cache.Peeked) (flushed, error) {
	if len(p.Entries) == 0 {
		return flushed{}, nil
	}
	p, err := f.rebase(ctx, p)
	if err != nil {
		return flushed{}, err
	}
	b := batch{Peeked: p, entries: p.Entries[:0:0], peeked: time.Now()}
	var odd flushed
	for _, e := range p.Entries {
		switch {
		case e.Missing, e.Foreign:
			done, err := f.setOddAside(ctx, p, e)
			odd.add(done)
			if err != nil {
				return odd, err
			}
		case !e.BaseUnknown:
			b.entries = append(b.entries, e)
		}
	}
	done, err := f.commit(ctx, b)
	done.add(odd)
	return done, err
}

// setOddAside deals with a dirty key whose entry somebody else has removed or replaced.
func (f *Flusher) setOddAside(ctx context.Context, p cache.Peeked, e cache.Entry) (flushed, error) {
	if e.Foreign {
		f.logger.Error("a dirty counter's entry in redis was overwritten by something else", "key", e.Key)
		return flushed{settled: 1}, f.refusals.Refused(ctx, e.Row, errForeign)
	}
	f.logger.Error("a dirty counter's entry in redis was deleted by hand: its unsynced writes are lost", "key", e.Key)
	again, err := f.cache.Ack(ctx, p.Shard, p.At, []cache.Committed{{Key: e.Key, Missing: true}})
	return flushed{settled: 1, again: again}, err
}

var errForeign = errors.New("its entry in redis was overwritten by something else")

// rebase gives the entries whose base is unknown their base from Postgres and peeks at them again. An entry that could
// not be rebased keeps BaseUnknown.
func (f *Flusher) rebase(ctx context.Context, p cache.Peeked) (cache.Peeked, error) {
	for range maxRebaseTries {
		var unknown []counter.Key
		known := make([]cache.Entry, 0, len(p.Entries))
		for _, e := range p.Entries {
			if e.BaseUnknown {
				unknown = append(unknown, e.Key)
			} else {
				known = append(known, e)
			}
		}
		if len(unknown) == 0 {
			return p, nil
		}
		if err := f.bring(ctx, p.Generation, unknown); err != nil {
			return p, err
		}
		again, err := f.cache.Peek(ctx, p.Shard, unknown, true)
		if err != nil {
			return p, err
		}
		known = append(known, again.Entries...)
		p.Entries, p.Generation = known, again.Generation
	}
	return p, nil
}

// bring reads the rows of keys and adds them to their entries.
func (f *Flusher) bring(ctx context.Context, generation string, keys []counter.Key) error {
	rows, err := f.store.Read(ctx, keys)
	if err != nil {
		return fmt.Errorf("read bases: %w", err)
	}
	bases := make([]cache.Base, len(keys))
	for i, key := range keys {
		row, found := rows[key]
		bases[i] = cache.Base{Key: key, Row: row, Found: found, Generation: generation}
	}
	done, err := f.cache.Hydrate(ctx, bases)
	if err != nil {
		return err
	}
	for i, key := range keys {
		if done[i] == cache.BaseOverflow {
			if err := f.refusals.Refused(ctx, counter.Row{Key: key}, errBaseOverflow); err != nil {
				return err
			}
		}
	}
	return nil
}

var errBaseOverflow = errors.New("the value in postgres and the increments accepted while it was away do not add up to a " +
	"signed 64-bit integer")

// batch is peeked entries, or a part of them, on their way to Postgres.
type batch struct {
	cache.Peeked

	entries []cache.Entry
	peeked  time.Time // by this process's clock
}

func (b batch) part(from, to int) batch {
	b.entries = b.entries[from:to]
	return b
}

// commit upserts the entries and acks them. Where Postgres refuses a row it halves the batch until that row is alone, so
// that it costs only itself; k bad rows of n take about k log2(n) statements.
func (f *Flusher) commit(ctx context.Context, b batch) (flushed, error) {
	if len(b.entries) == 0 {
		return flushed{}, nil
	}
	rows := make([]counter.Row, len(b.entries))
	for i, e := range b.entries {
		rows[i] = e.Row
	}
	started := time.Now()
	ahead, err := f.store.Upsert(ctx, rows)
	f.metrics.flush(len(rows), time.Since(started), err)
	switch {
	case err == nil:
		return f.ack(ctx, b, ahead)
	case store.Classify(err) != store.Refused:
		return flushed{}, err
	case len(rows) == 1:
		return flushed{settled: 1}, f.refusals.Refused(ctx, rows[0], err)
	}
	half := len(b.entries) / 2
	done, err := f.commit(ctx, b.part(0, half))
	if err != nil {
		return done, err
	}
	rest, err := f.commit(ctx, b.part(half, len(b.entries)))
	done.add(rest)
	return done, err
}

// ack clears the dirty marks of what Postgres has.
func (f *Flusher) ack(ctx context.Context, b batch, ahead []counter.Row) (flushed, error) {
	lost, err := f.lostTail(ctx, b, ahead)
	if err != nil {
		return flushed{}, err
	}
	committed := make([]cache.Committed, 0, len(b.entries))
	for _, e := range b.entries {
		if !lost[e.Key] {
			committed = append(committed, cache.Committed{Key: e.Key, Version: e.Version})
		}
	}
	again, err := f.cache.Ack(ctx, b.Shard, b.At, committed)
	if err != nil {
		return flushed{}, err
	}
	rows := len(b.entries) - len(ahead)
	f.metrics.committed(rows, b)
	f.logger.Debug("flushed", "shard", b.Shard, "keys", len(b.entries), "rows", rows, "again", len(again),
		"took", time.Since(b.peeked))
	return flushed{settled: len(b.entries), rows: int64(rows), again: again}, nil
}

// lostTail looks at rows that Postgres already had in the same or a newer version. Mostly that is a flush that ran twice
// or late. But where the entry in Redis is still older now, or is another state of the same version, Redis has come back
// without its last moments: clearing its dirty mark would lose what was written since, so the key is put aside.
func (f *Flusher) lostTail(ctx context.Context, b batch, ahead []counter.Row) (map[counter.Key]bool, error) {
	flushed := make(map[counter.Key]counter.Row, len(b.entries))
	for _, e := range b.entries {
		if len(ahead) > 0 {
			flushed[e.Key] = e.Row
		}
	}
	lost := make(map[counter.Key]bool)
	for _, row := range ahead {
		if row == flushed[row.Key] {
			continue // this very state: a flush that ran twice
		}
		now, err := f.cache.Peek(ctx, b.Shard, []counter.Key{row.Key}, true)
		if err != nil {
			return nil, err
		}
		for _, e := range now.Entries {
			if e.Missing || e.BaseUnknown || e.Version > row.Version || e.Row == row {
				continue
			}
			lost[row.Key] = true
			reason := fmt.Errorf("%w: it has version %d, redis only %d", errLostTail, row.Version, e.Version)
			f.logger.Error("redis has lost writes that postgres has", "key", row.Key,
				"redis_version", e.Version, "redis_value", e.Value, "postgres_version", row.Version, "postgres_value", row.Value)
			if err := f.refusals.Refused(ctx, e.Row, reason); err != nil {
				return nil, err
			}
		}
	}
	return lost, nil
}

var errLostTail = errors.New("postgres is ahead of redis, which has lost its last writes")
