package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
)

// maxRebaseTries bounds how often the bases of entries are read again because a key became clean meanwhile.
const maxRebaseTries = 3

// Store is the Postgres side, see package store.
type Store interface {
	UpsertUnlocked(ctx context.Context, rows []counter.Row) (ahead []counter.Row, locked []counter.Key, err error)
	Read(ctx context.Context, keys []counter.Key) (map[counter.Key]counter.Row, error)
	Purge(ctx context.Context, olderThan time.Duration, limit int) (removed int64, err error)
	Available() bool
	Up() bool
}

// Flusher brings dirty entries to Postgres. It is safe for concurrent use, in this process and in others.
type Flusher struct {
	cache    *cache.Cache
	store    Store
	retries  *retries
	metrics  *metrics
	logger   *slog.Logger
	batching *batching
	deferred *deferrals
	turns    turns
}

// flushed is what a flush of some entries achieved, also when it ended with an error.
type flushed struct {
	rows      int64         // that Postgres took
	committed []cache.Entry // of which Postgres has a state at least as new
	refused   []refusal
	deferred  time.Duration // the shortest time for which an entry was put off; 0: none was
}

// refusal is a row that Postgres refused although it was alone in its statement.
type refusal struct {
	row    counter.Row
	reason error
}

func (d *flushed) add(more *flushed) {
	d.rows += more.rows
	d.committed = append(d.committed, more.committed...)
	d.refused = append(d.refused, more.refused...)
	d.deferred = sooner(d.deferred, more.deferred)
}

// sooner is the shorter of two times, of which 0 is none.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || (b > 0 && b < a) {
		return b
	}
	return a
}

// batch is entries of one shard on their way to Postgres.
type batch struct {
	shard   counter.Shard
	entries []cache.Entry
	backlog int // how many entries there are, these and others
}

func (b batch) part(from, to int) batch {
	b.entries = b.entries[from:to]
	return b
}

// flush brings the dirty entries of a snapshot to Postgres: those that are set aside, or those that are not. What fails does not
// keep the rest from being tried. backlog is how many entries wait, these and others.
func (f *Flusher) flush(ctx context.Context, s cache.Snapshot, aside bool, backlog int) (flushed, error) {
	var done flushed
	known := make([]cache.Entry, 0, len(s.Entries))
	var unknown []cache.Entry
	for _, e := range s.Entries {
		switch {
		case e.Missing:
			f.logger.ErrorContext(ctx, "a dirty counter's entry in redis was deleted by hand: its unsynced writes are lost", "key", e.Key)
		case e.Corrupt:
			f.logger.ErrorContext(ctx, "a dirty counter's entry in redis was overwritten by something else", "key", e.Key)
			done.refused = append(done.refused, refusal{e.Row, errCorrupt})
		case e.Aside != aside, e.Epoch == 0 && !aside: // its retry will flush it; or it is clean
		case e.BaseUnknown:
			unknown = append(unknown, e)
		default:
			known = append(known, e)
		}
	}
	rebased, rebaseErr := f.rebase(ctx, s, unknown, &done)
	b := batch{shard: s.Shard, entries: append(known, rebased...), backlog: backlog}
	committed, err := f.commitInParts(ctx, b)
	done.add(&committed)
	return done, errors.Join(err, rebaseErr)
}

var errCorrupt = errors.New("its entry in redis was overwritten by something else")

var errBaseOverflow = errors.New("the value in postgres and the increments accepted while it was away do not add up to a " +
	"signed 64-bit integer")

var errUnsettled = errors.New("other flushes were completed each time that bases were read")

// rebase gives entries whose base is unknown their base from Postgres, and returns them as they are then. Those whose sum would
// overflow are refused.
func (f *Flusher) rebase(ctx context.Context, s cache.Snapshot, unknown []cache.Entry, done *flushed) ([]cache.Entry, error) {
	var out []cache.Entry
	for range maxRebaseTries {
		if len(unknown) == 0 {
			return out, nil
		}
		known, stale, err := f.rebaseOnce(ctx, s, unknown, done)
		out = append(out, known...)
		if err != nil || len(stale) == 0 {
			return out, err
		}
		if s, err = f.cache.Read(ctx, s.Shard, stale); err != nil {
			return out, err
		}
		unknown = unknown[:0]
		for _, e := range s.Entries {
			switch {
			case e.Missing, e.Epoch == 0: // it is gone, or clean, by now
			case e.Corrupt:
				done.refused = append(done.refused, refusal{e.Row, errCorrupt})
			case e.BaseUnknown:
				unknown = append(unknown, e)
			default:
				out = append(out, e)
			}
		}
	}
	return out, errUnsettled
}

// rebaseOnce returns the entries that have their base now, and the keys to be read again: their token was stale, or somebody
// else has given them their base.
func (f *Flusher) rebaseOnce(ctx context.Context, s cache.Snapshot, unknown []cache.Entry, done *flushed) (
	known []cache.Entry, stale []counter.Key, err error,
) {
	keys := make([]counter.Key, len(unknown))
	for i := range unknown {
		keys[i] = unknown[i].Key
	}
	rows, err := f.store.Read(ctx, keys)
	if err != nil {
		return nil, nil, fmt.Errorf("read bases: %w", err)
	}
	bases := make([]cache.Base, len(keys))
	for i, key := range keys {
		row, found := rows[key]
		bases[i] = cache.Base{Key: key, Row: row, Found: found, Token: s.Token}
	}
	answers, known, err := f.cache.Rebase(ctx, bases)
	if err != nil {
		return nil, nil, err
	}
	has := make(map[counter.Key]bool, len(known))
	for i := range known {
		has[known[i].Key] = true
	}
	for i, key := range keys {
		switch {
		case answers[i] == cache.BaseOverflow:
			done.refused = append(done.refused, refusal{counter.Row{Key: key}, errBaseOverflow})
		case !has[key]:
			stale = append(stale, key)
		}
	}
	return known, stale, nil
}

// commitInParts commits the entries in as many statements as Postgres can take them. Those that took too long the last time come
// last, each alone.
func (f *Flusher) commitInParts(ctx context.Context, b batch) (flushed, error) {
	var done flushed
	var failed error
	others, slow := f.deferred.split(b.entries)
	b.entries = slices.Concat(others, slow)
	for from := 0; from < len(b.entries); {
		to := from + 1
		if from < len(others) {
			to = min(from+f.batching.rows(b.shard), len(others))
		}
		part, err := f.commit(ctx, b.part(from, to))
		done.add(&part)
		if store.TooSlow(err) && to-from > 1 {
			continue // with fewer rows. If Postgres is slow as a whole, the breaker opens before long
		}
		failed = errors.Join(failed, err)
		if class := store.Classify(err); class == store.Outage || class == store.Operator || class == store.Canceled {
			return done, failed // the next would meet the same
		}
		from = to
	}
	return done, failed
}

// commit upserts the entries. Where Postgres refuses a row it halves the batch until that row is alone, so that it costs only
// itself; k bad rows of n take about k log2(n) statements. Rows that somebody else holds locked are put off.
func (f *Flusher) commit(ctx context.Context, b batch) (flushed, error) {
	if len(b.entries) == 0 {
		return flushed{}, nil
	}
	rows := make([]counter.Row, len(b.entries))
	for i := range b.entries {
		rows[i] = b.entries[i].Row
	}
	started := time.Now()
	ahead, locked, err := f.store.UpsertUnlocked(ctx, rows)
	took := time.Since(started)
	f.metrics.flush(len(rows), took, err)
	switch {
	case err == nil:
		f.batching.kept(b.shard, len(rows), took, b.backlog)
		return f.settle(ctx, b, ahead, locked)
	case store.TooSlow(err) && len(rows) > 1:
		f.batching.missed(b.shard, len(rows))
		return flushed{}, err
	case store.TooSlow(err):
		f.batching.isolated(b.shard)
		return f.putOff(ctx, b, true)
	case store.Classify(err) != store.Refused:
		return flushed{}, err
	case len(rows) == 1:
		return flushed{refused: []refusal{{rows[0], err}}}, nil
	}
	return f.commitHalves(ctx, b)
}

func (f *Flusher) commitHalves(ctx context.Context, b batch) (flushed, error) {
	half := len(b.entries) / 2
	done, err := f.commit(ctx, b.part(0, half))
	rest, restErr := f.commit(ctx, b.part(half, len(b.entries)))
	done.add(&rest)
	return done, errors.Join(err, restErr)
}

// split parts the entries by whether their keys are among held.
func (b batch) split(held []counter.Key) (free, stuck batch) {
	if len(held) == 0 {
		return b, batch{}
	}
	aside := make(map[counter.Key]bool, len(held))
	for _, key := range held {
		aside[key] = true
	}
	free, stuck = b, b
	free.entries, stuck.entries = nil, nil
	for _, e := range b.entries {
		if aside[e.Key] {
			stuck.entries = append(stuck.entries, e)
		} else {
			free.entries = append(free.entries, e)
		}
	}
	return free, stuck
}

// putOff sets entries aside for a while, longer each time, since their rows are locked, or slow. Nothing is wrong with them, so
// no attempt is counted.
func (f *Flusher) putOff(ctx context.Context, b batch, slow bool) (flushed, error) {
	if len(b.entries) == 0 {
		return flushed{}, nil
	}
	f.metrics.hindered.Add(float64(len(b.entries)))
	why := "a row in postgres is locked by another transaction"
	if slow {
		why = "a row takes postgres longer than the statement timeout"
	}
	groups := f.deferred.next(b.entries, time.Now(), slow)
	done := flushed{}
	for delay, keys := range groups {
		if err := f.cache.SetAside(ctx, b.shard, keys, delay); err != nil { // step: put off
			return done, err
		}
		done.deferred = sooner(done.deferred, delay)
	}
	f.logger.WarnContext(ctx, why+"; it is tried again later", "rows", len(b.entries), "first", b.entries[0].Key, "in", done.deferred)
	return done, nil
}

// settle looks at what kept entries out, once Postgres has committed the batch: rows that are ahead, or locked.
func (f *Flusher) settle(ctx context.Context, b batch, ahead []counter.Row, locked []counter.Key) (flushed, error) {
	b, stuck := b.split(locked)
	done := flushed{rows: int64(len(b.entries) - len(ahead))}
	unsettled, err := f.reconcile(ctx, b, ahead, &done)
	for _, e := range b.entries {
		if !unsettled[e.Key] {
			done.committed = append(done.committed, e)
		}
	}
	f.deferred.forget(b.entries)
	f.metrics.rows.Add(float64(done.rows))
	off, offErr := f.putOff(ctx, stuck, false)
	done.add(&off)
	return done, errors.Join(err, offErr)
}
