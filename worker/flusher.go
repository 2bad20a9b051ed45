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

// Store is the Postgres side, see package store.
type Store interface {
	UpsertUnlocked(ctx context.Context, rows []counter.Row) (store.Upserted, error)
	UpsertHistory(ctx context.Context, rows []counter.Row, history store.History) (store.Upserted, error)
	PrepareHistory(ctx context.Context) error
	PurgeHistory(ctx context.Context, retention time.Duration, limit int) (dropped int, err error)
	Read(ctx context.Context, keys []counter.Key) (map[counter.Key]counter.Row, error)
	Purge(ctx context.Context, olderThan time.Duration, limit int) (removed int64, more bool, err error)
	Available() bool
	Up() bool
}

// Flusher writes dirty entries to Postgres. It is safe for concurrent use, in this process and in others.
type Flusher struct {
	cache    *cache.Cache
	store    Store
	retries  *retries
	metrics  *metrics
	logger   *slog.Logger
	batching *batching
	deferred *deferrals
	turns    turns
	longest  time.Duration // bound of a drain; 0: maxDrain
}

// flushed is the result of a flush of some entries, even of one that failed.
type flushed struct {
	rows      int64         // rows written to Postgres
	committed []cache.Entry // entries whose rows are at least as new
	partial   []cache.Entry // those of which a part was committed, and more is owed
	missing   []counter.Key // keys without an entry
	refused   []refusal
	deferred  time.Duration // the shortest deferral of an entry; 0: there was none
}

// refusal is a row that Postgres refused although it was alone in its statement.
type refusal struct {
	row    counter.Row
	reason error
}

var errCorrupt = errors.New("its entry in redis was overwritten by something else")

func (d *flushed) add(more *flushed) {
	d.rows += more.rows
	d.committed = append(d.committed, more.committed...)
	d.partial = append(d.partial, more.partial...)
	d.missing = append(d.missing, more.missing...)
	d.refused = append(d.refused, more.refused...)
	d.deferred = sooner(d.deferred, more.deferred)
}

// sooner returns the shorter of two durations; 0 means none.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || (b > 0 && b < a) {
		return b
	}
	return a
}

// batch holds entries of one shard for one or more statements.
type batch struct {
	shard   counter.Shard
	entries []cache.Entry
	backlog int // entries that wait, including these
	tries   int // of flushChanged
}

func (b batch) part(from, to int) batch {
	b.entries = b.entries[from:to]
	return b
}

// flush writes the dirty entries of a snapshot to Postgres: if aside is true, the set-aside ones, otherwise the others. After a failure it
// still tries the rest. It returns refused rows, which the caller sets aside. backlog is the number of entries that wait, including these.
// Before each further part of large entries it calls proceed, and ends if that fails.
func (f *Flusher) flush(
	ctx context.Context, s cache.Snapshot, aside bool, backlog int, proceed func(context.Context) error,
) (flushed, error) {
	var done flushed
	if err := f.cache.ReadRecords(ctx, &s); err != nil {
		return done, err
	}
	known, unknown := f.dirty(ctx, s, aside, &done)
	rebased, rebaseErr := f.rebase(ctx, s, unknown, &done)
	others, slow := f.deferred.split(append(known, rebased...))
	b := batch{shard: s.Shard, entries: slices.Concat(others, slow), backlog: backlog}
	var failed error
	for from := 0; from < len(b.entries); {
		to := from + 1 // slow entries come last, each in a statement of its own
		if from < len(others) {
			to = min(from+f.batching.rows(b.shard), len(others))
			to = from + withinRecords(b.entries[from:to])
		}
		part, err := f.commit(ctx, b.part(from, to))
		done.add(&part)
		if store.TooSlow(err) && to-from > 1 {
			continue // with fewer rows; if Postgres is slow as a whole, the breaker opens soon
		}
		failed = errors.Join(failed, err)
		if class := store.Classify(err); class == store.Outage || class == store.Operator || class == store.Canceled {
			break // the next statement would fail like this one
		}
		from = to
	}
	if failed == nil {
		failed = f.flushRest(ctx, b, aside, proceed, &done)
	}
	return done, errors.Join(failed, rebaseErr, f.cache.DropStray(ctx, s.Shard, done.missing))
}

// errUntrimmed ends a flush that would flush the same part for ever.
var errUntrimmed = errors.New("a counter's records stay in redis although postgres has them")

// owed is what is left to flush of a large entry.
type owed struct {
	first   int64 // the version of the first record of the last part
	through int64 // the version of the entry when it was first read: later writes are in the open epoch
}

// flushRest flushes the rest of the entries of which a part was committed, part by part.
func (f *Flusher) flushRest(
	ctx context.Context, b batch, aside bool, proceed func(context.Context) error, done *flushed,
) error {
	rest := make(map[counter.Key]owed)
	for len(done.partial) > 0 {
		keys := make([]counter.Key, len(done.partial))
		for i, e := range done.partial {
			before, again := rest[e.Key]
			if first := e.Records.All[0].Version; !again {
				rest[e.Key] = owed{first, e.Through}
			} else if first == before.first {
				return fmt.Errorf("%w: %q", errUntrimmed, e.Key)
			} else {
				rest[e.Key] = owed{first, before.through}
			}
			keys[i] = e.Key
		}
		done.partial = nil
		snapshot, err := f.cache.Read(ctx, b.shard, keys)
		if err == nil {
			err = f.cache.ReadRecords(ctx, &snapshot)
		}
		if err != nil {
			return err
		}
		entries, unknown := f.dirty(ctx, snapshot, aside, done)
		if len(unknown) > 0 {
			return errUnsettled // they were replaced meanwhile
		}
		for i := range entries {
			entries[i].Through = rest[entries[i].Key].through
		}
		for len(entries) > 0 {
			if err := proceed(ctx); err != nil {
				return err
			}
			n := withinRecords(entries)
			b.entries, entries = entries[:n], entries[n:]
			part, err := f.commit(ctx, b)
			done.add(&part)
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// dirty returns the entries to flush, separated by whether their base is known.
func (f *Flusher) dirty(ctx context.Context, s cache.Snapshot, aside bool, done *flushed) (known, unknown []cache.Entry) {
	known = make([]cache.Entry, 0, len(s.Entries))
	for _, e := range s.Entries {
		switch {
		case e.Missing:
			f.logger.ErrorContext(ctx, "a dirty counter's entry in redis was deleted by hand: its unsynced writes are lost", "key", e.Key)
			done.missing = append(done.missing, e.Key)
		case e.Corrupt:
			f.logger.ErrorContext(ctx, "a dirty counter's entry in redis was overwritten by something else", "key", e.Key)
			done.refused = append(done.refused, refusal{e.Row, errCorrupt})
		case e.Aside != aside, e.Epoch == 0 && !aside: // its retry flushes it; or it is clean
		case e.BaseUnknown:
			unknown = append(unknown, e)
		default:
			known = append(known, e)
		}
	}
	return known, unknown
}

// commit upserts the entries in one statement. If Postgres refuses a row, it halves the batch until that row is alone, so that the others
// are still written: k bad rows of n take about k log2(n) statements. It defers rows that are locked by another transaction, or slow.
func (f *Flusher) commit(ctx context.Context, b batch) (flushed, error) {
	if len(b.entries) == 0 {
		return flushed{}, nil
	}
	rows := make([]counter.Row, len(b.entries))
	for i := range b.entries {
		rows[i] = b.entries[i].Row
	}
	started := time.Now()
	upserted, err := f.upsert(ctx, b, rows)
	took := time.Since(started)
	f.metrics.flush(len(rows), took, err)
	switch {
	case err == nil:
		f.batching.kept(b.shard, len(rows), took, b.backlog)
		return f.settle(ctx, b, &upserted)
	case store.TooSlow(err) && len(rows) > 1:
		f.batching.missed(b.shard, len(rows))
		return flushed{}, err
	case store.TooSlow(err):
		f.batching.isolated(b.shard)
		return f.deferEntries(ctx, b, slowRow)
	case store.Classify(err) != store.Refused:
		return flushed{}, err
	case len(rows) == 1:
		if failed, ok := errors.AsType[*store.MappingError](err); ok {
			err = failed // so that the reason begins with the mapping
		}
		return flushed{refused: []refusal{{rows[0], err}}}, nil
	}
	half := len(b.entries) / 2
	done, err := f.commit(ctx, b.part(0, half))
	rest, restErr := f.commit(ctx, b.part(half, len(b.entries)))
	done.add(&rest)
	return done, errors.Join(err, restErr)
}

// settle handles the entries of a committed batch that were not written: rows that are ahead, refused or locked, and broken mappings.
func (f *Flusher) settle(ctx context.Context, b batch, upserted *store.Upserted) (flushed, error) {
	b, blocked := b.split(upserted.Locked)
	b, refused := b.split(keysOf(upserted.Refused))
	done := flushed{}
	for _, r := range upserted.Refused {
		done.refused = append(done.refused, refusal{r.Row, r.Err})
	}
	f.metrics.mapped(upserted)
	failed := f.deferBroken(ctx, &b, upserted, &done)
	done.rows = int64(len(b.entries) - len(upserted.Ahead))
	unsettled, err := f.reconcile(ctx, b, upserted.Ahead, &done)
	for _, e := range b.entries {
		switch {
		case unsettled[e.Key]:
		case e.Partial && e.Version < e.Through:
			done.partial = append(done.partial, e)
		default:
			done.committed = append(done.committed, e)
		}
	}
	// Before the commit of the epoch, so that a clean counter has no records.
	err = errors.Join(err, f.cache.Trim(ctx, b.shard, b.recorded(unsettled))) // step: trim
	f.deferred.forget(b.entries)
	f.deferred.forget(refused.entries)
	f.metrics.rows.Add(float64(done.rows))
	deferred, deferErr := f.deferEntries(ctx, blocked, lockedRow)
	done.add(&deferred)
	if err = errors.Join(err, failed, deferErr); err != nil {
		return done, err
	}
	changed, err := f.flushChanged(ctx, b, upserted.Ahead)
	done.add(&changed)
	return done, err
}

// recorded returns the entries with records, without the unsettled ones.
func (b batch) recorded(unsettled map[counter.Key]bool) (recorded []cache.Entry) {
	for _, e := range b.entries {
		if e.Records != nil && !unsettled[e.Key] {
			recorded = append(recorded, e)
		}
	}
	return recorded
}

func keysOf(refused []store.Refusal) []counter.Key {
	keys := make([]counter.Key, len(refused))
	for i := range refused {
		keys[i] = refused[i].Row.Key
	}
	return keys
}

// deferBroken takes the entries of broken mappings out of b and defers them. They are written when an operator has repaired the table.
func (f *Flusher) deferBroken(ctx context.Context, b *batch, upserted *store.Upserted, done *flushed) error {
	var failed error
	for _, broken := range upserted.Broken {
		f.metrics.breaks(broken.Mapping, broken.Err)
		var blocked batch
		*b, blocked = b.split(broken.Keys)
		deferred, err := f.deferEntries(ctx, blocked, brokenMapping)
		done.add(&deferred)
		failed = errors.Join(failed, err)
	}
	return failed
}

// split separates the entries whose keys are in locked from the others.
func (b batch) split(locked []counter.Key) (free, blocked batch) {
	if len(locked) == 0 {
		return b, batch{}
	}
	isLocked := make(map[counter.Key]bool, len(locked))
	for _, key := range locked {
		isLocked[key] = true
	}
	free, blocked = b, b
	free.entries, blocked.entries = nil, nil
	for _, e := range b.entries {
		if isLocked[e.Key] {
			blocked.entries = append(blocked.entries, e)
		} else {
			free.entries = append(free.entries, e)
		}
	}
	return free, blocked
}

// deferral reasons, as they are logged.
const (
	lockedRow     = "a row in postgres is locked by another transaction"
	slowRow       = "a row takes postgres longer than the statement timeout"
	brokenMapping = "a mapped table cannot be written"
)

// deferEntries sets entries aside for a short time, longer each time, because their rows are locked or slow, or their mapping is broken.
// Nothing is wrong with them, so it counts no attempt.
func (f *Flusher) deferEntries(ctx context.Context, b batch, why string) (flushed, error) {
	if len(b.entries) == 0 {
		return flushed{}, nil
	}
	f.metrics.deferred.Add(float64(len(b.entries)))
	groups := f.deferred.next(b.entries, time.Now(), why == slowRow)
	done := flushed{}
	for delay, keys := range groups {
		if err := f.cache.SetAside(ctx, b.shard, keys, delay); err != nil { // step: deferred
			return done, err
		}
		done.deferred = sooner(done.deferred, delay)
	}
	level := slog.LevelWarn
	if why == brokenMapping {
		level = slog.LevelDebug // its error is logged once
	}
	f.logger.Log(ctx, level, why+"; trying again later", "rows", len(b.entries), "first", b.entries[0].Key, "in", done.deferred)
	return done, nil
}
