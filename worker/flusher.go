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
	Locked(ctx context.Context, keys []counter.Key) ([]counter.Key, error)
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

const (
	// hinderedDelay is how long a key is put aside whose row somebody else holds locked, or which takes too long on its own.
	hinderedDelay = 5 * time.Second

	// maxLockWaits bounds the statements of one flush that may run into a lock while the row is looked for: past it, it is the
	// table that is locked.
	maxLockWaits = 16
)

// Flusher brings dirty entries to Postgres. It is safe for concurrent use, in this process and in others.
type Flusher struct {
	cache    *cache.Cache
	store    Store
	hints    Hints
	refusals Refusals
	metrics  *metrics
	logger   *slog.Logger
	batch    int
	rowLimit *rowLimit
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

// flush brings peeked entries to Postgres. What fails does not keep the rest from being tried.
func (f *Flusher) flush(ctx context.Context, p cache.Peeked) (flushed, error) {
	if len(p.Entries) == 0 {
		return flushed{}, nil
	}
	p, rebaseErr := f.rebase(ctx, p)
	b := batch{Peeked: p, entries: p.Entries[:0:0], peeked: time.Now(), lockWaits: new(int)}
	var odd flushed
	var oddErr error
	for _, e := range p.Entries {
		switch {
		case e.Missing, e.Foreign:
			done, err := f.setOddAside(ctx, p, e)
			odd.add(done)
			oddErr = errors.Join(oddErr, err)
		case !e.BaseUnknown:
			b.entries = append(b.entries, e)
		}
	}
	done, err := f.commitInParts(ctx, b)
	done.add(odd)
	return done, errors.Join(err, oddErr, rebaseErr)
}

// setOddAside deals with a dirty key whose entry somebody else has removed or replaced.
func (f *Flusher) setOddAside(ctx context.Context, p cache.Peeked, e cache.Entry) (flushed, error) {
	if e.Foreign {
		f.logger.ErrorContext(ctx, "a dirty counter's entry in redis was overwritten by something else", "key", e.Key)
		return flushed{settled: 1}, f.refusals.Refused(ctx, e.Row, errForeign)
	}
	f.logger.ErrorContext(ctx, "a dirty counter's entry in redis was deleted by hand: its unsynced writes are lost", "key", e.Key)
	again, err := f.cache.Ack(ctx, p.Shard, p.At, []cache.Committed{{Key: e.Key, Missing: true}})
	return flushed{settled: 1, again: again}, err
}

var errForeign = errors.New("its entry in redis was overwritten by something else")

// rebase gives the entries whose base is unknown their base from Postgres and peeks at them again. An entry that could
// not be rebased keeps BaseUnknown; with an error, some entries may.
func (f *Flusher) rebase(ctx context.Context, p cache.Peeked) (cache.Peeked, error) {
	var refused error
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
			return p, refused
		}
		brought, err := f.bring(ctx, p.Generation, unknown)
		refused = errors.Join(refused, err)
		if len(brought) == 0 {
			p.Entries = known
			return p, refused
		}
		again, err := f.cache.Peek(ctx, p.Shard, brought, true)
		if err != nil {
			return p, errors.Join(refused, err)
		}
		known = append(known, again.Entries...)
		p.Entries, p.Generation = known, again.Generation
	}
	return p, refused
}

// bring reads the rows of keys and adds them to their entries. It returns the keys to look at again: all but those whose
// sum would overflow, which are put aside.
func (f *Flusher) bring(ctx context.Context, generation string, keys []counter.Key) ([]counter.Key, error) {
	rows, err := f.store.Read(ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("read bases: %w", err)
	}
	bases := make([]cache.Base, len(keys))
	for i, key := range keys {
		row, found := rows[key]
		bases[i] = cache.Base{Key: key, Row: row, Found: found, Generation: generation}
	}
	done, err := f.cache.Hydrate(ctx, bases)
	if err != nil {
		return nil, err
	}
	brought := make([]counter.Key, 0, len(keys))
	for i, key := range keys {
		if done[i] == cache.BaseOverflow {
			err = errors.Join(err, f.refusals.Refused(ctx, counter.Row{Key: key}, errBaseOverflow))
		} else {
			brought = append(brought, key)
		}
	}
	return brought, err
}

var errBaseOverflow = errors.New("the value in postgres and the increments accepted while it was away do not add up to a " +
	"signed 64-bit integer")

// batch is peeked entries, or a part of them, on their way to Postgres.
type batch struct {
	cache.Peeked

	entries   []cache.Entry
	peeked    time.Time // by this process's clock
	lockWaits *int      // statements that have run into a lock so far, in all parts of the batch
}

func (b batch) part(from, to int) batch {
	b.entries = b.entries[from:to]
	return b
}

// commitInParts commits the entries in as many statements as Postgres can take them, nearly always one.
func (f *Flusher) commitInParts(ctx context.Context, b batch) (flushed, error) {
	var done flushed
	var failed error
	for from := 0; from < len(b.entries); {
		to := min(from+f.rowLimit.rows(f.batch), len(b.entries))
		part, err := f.commit(ctx, b.part(from, to))
		done.add(part)
		failed = errors.Join(failed, err)
		if class := store.Classify(err); class == store.Outage || class == store.Operator || class == store.Canceled {
			return done, failed // the next would meet the same
		}
		from = to
	}
	return done, failed
}

// commit upserts the entries and acks them. Where Postgres refuses a row it halves the batch until that row is alone, so
// that it costs only itself; k bad rows of n take about k log2(n) statements. Rows that somebody else holds locked are put
// aside for a while.
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
		f.rowLimit.kept(len(rows))
		return f.ack(ctx, b, ahead)
	case store.TooSlow(err) && len(rows) > 1:
		f.rowLimit.missed(len(rows))
		return flushed{}, err
	case store.TooSlow(err):
		return f.setHinderedAside(ctx, b, "a row takes postgres longer than the statement timeout")
	case store.IsLocked(err):
		return f.commitUnlocked(ctx, b, err)
	case store.Classify(err) != store.Refused:
		return flushed{}, err
	case len(rows) == 1:
		return flushed{settled: 1}, f.refusals.Refused(ctx, rows[0], err)
	}
	return f.commitHalves(ctx, b)
}

func (f *Flusher) commitHalves(ctx context.Context, b batch) (flushed, error) {
	half := len(b.entries) / 2
	done, err := f.commit(ctx, b.part(0, half))
	rest, restErr := f.commit(ctx, b.part(half, len(b.entries)))
	done.add(rest)
	return done, errors.Join(err, restErr)
}

// commitUnlocked commits those entries whose rows nobody else holds locked, and puts the others aside. locked is the error
// of the upsert that ran into them. A row that somebody is inserting cannot be seen: it is found by halving.
func (f *Flusher) commitUnlocked(ctx context.Context, b batch, locked error) (flushed, error) {
	if *b.lockWaits++; *b.lockWaits > maxLockWaits {
		return flushed{}, locked
	}
	keys := make([]counter.Key, len(b.entries))
	for i, e := range b.entries {
		keys[i] = e.Key
	}
	held, err := f.store.Locked(ctx, keys)
	switch {
	case err != nil:
		return flushed{}, errors.Join(locked, err)
	case len(b.entries) == 1:
		return f.setHinderedAside(ctx, b, "a row in postgres is locked by somebody else")
	case len(held) == 0:
		return f.commitHalves(ctx, b)
	}
	aside := make(map[counter.Key]bool, len(held))
	for _, key := range held {
		aside[key] = true
	}
	free, stuck := b, b
	free.entries, stuck.entries = nil, nil
	for _, e := range b.entries {
		if aside[e.Key] {
			stuck.entries = append(stuck.entries, e)
		} else {
			free.entries = append(free.entries, e)
		}
	}
	done, err := f.setHinderedAside(ctx, stuck, "rows in postgres are locked by somebody else")
	rest, restErr := f.commit(ctx, free)
	done.add(rest)
	return done, errors.Join(err, restErr)
}

// setHinderedAside parks the keys for a while. Nothing is wrong with them, so no attempt is counted.
func (f *Flusher) setHinderedAside(ctx context.Context, b batch, why string) (flushed, error) {
	f.metrics.hindered.Add(float64(len(b.entries)))
	f.logger.WarnContext(ctx, why+"; it is tried again later", "rows", len(b.entries), "first", b.entries[0].Key, "in", hinderedDelay)
	var failed error
	for _, e := range b.entries {
		failed = errors.Join(failed, f.cache.Park(ctx, e.Key, hinderedDelay))
	}
	return flushed{settled: len(b.entries)}, failed
}

// ack clears the dirty marks of what Postgres has.
func (f *Flusher) ack(ctx context.Context, b batch, ahead []counter.Row) (flushed, error) {
	aside, reconcileErr := f.reconcile(ctx, b, ahead)
	committed := make([]cache.Committed, 0, len(b.entries))
	for i := range b.entries {
		if e := &b.entries[i]; !aside[e.Key] {
			committed = append(committed, e.Committed())
		}
	}
	again, err := f.cache.Ack(ctx, b.Shard, b.At, committed)
	if err != nil {
		return flushed{}, errors.Join(err, reconcileErr)
	}
	rows := len(b.entries) - len(ahead)
	f.metrics.committed(rows, b)
	f.logger.DebugContext(ctx, "flushed", "shard", b.Shard, "keys", len(b.entries), "rows", rows, "again", len(again),
		"took", time.Since(b.peeked))
	return flushed{settled: len(b.entries), rows: int64(rows), again: again}, reconcileErr
}
