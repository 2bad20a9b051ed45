package writepath

import (
	"cmp"
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// checksAtOnce bounds the shards that are checked at once.
	checksAtOnce = 4

	// checkTimeout bounds one check.
	checkTimeout = 3 * time.Second

	// maxInspected bounds the entries that one call reads.
	maxInspected = 1000
)

// checkAll checks the marked shards. After an error the next poll checks again.
func (w *waiters) checkAll(ctx context.Context) {
	w.mu.Lock()
	marked := w.marked
	w.marked = make(map[counter.Shard]bool)
	w.mu.Unlock()
	var group errgroup.Group
	group.SetLimit(checksAtOnce)
	for shard, all := range marked {
		group.Go(func() error {
			w.check(ctx, shard, all)
			return nil
		})
	}
	_ = group.Wait() // none fails
}

// check reads the progress of a shard once, for all targets in it or the new ones.
func (w *waiters) check(ctx context.Context, shard counter.Shard, all bool) {
	var targets []*target
	w.mu.Lock()
	for t := range w.shards[shard] {
		if all || !t.checked {
			targets = append(targets, t)
		}
	}
	w.mu.Unlock()
	if len(targets) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	p, err := w.cache.Progress(ctx, shard)
	if err != nil {
		return // the next check tries again
	}
	var unclear []*target
	w.mu.Lock()
	for _, t := range targets {
		if !t.over && !w.judge(t, p) {
			unclear = append(unclear, t)
		}
		t.checked = true
	}
	w.mu.Unlock()
	w.inspect(ctx, shard, unclear)
}

// judge ends the wait for a target if the shard's progress shows that Postgres has it, or that this can never be known. It reports false if
// only the entry can tell. The lock is held.
func (w *waiters) judge(t *target, p cache.Progress) bool {
	switch {
	case t.mark.first != 0 && t.mark.first != p.First:
		// Redis was restarted, or a replica was promoted: it may have lost the write and used its version for another.
		w.settle(t, false)
	case t.mark.epoch == 0:
		return false
	case t.mark.epoch > p.Watermark:
		// The open epoch also gets a new ID when a key leaves its retry or is repaired. If it was this key, the epoch in which it was
		// written while set aside may never be flushed.
		return t.mark.epoch == p.Open || t.mark.epoch == p.Sealed
	case t.version == 0, p.Aside, p.Requeued > t.mark.epoch:
		return false // only the entry shows the version, and whether its key was set aside meanwhile
	default:
		w.settle(t, true)
	}
	return true
}

// inspected is an entry and the watermark of its shard, as they were read.
type inspected struct {
	cache.Entry

	watermark int64
	row       counter.Row // of an entry that is no longer in Redis
	stored    bool        // Postgres has the row
}

// inspect reads the entries of targets that the shard's progress does not decide.
func (w *waiters) inspect(ctx context.Context, shard counter.Shard, targets []*target) {
	if len(targets) == 0 {
		return
	}
	entries, err := w.read(ctx, shard, targets)
	if err != nil {
		return // the next check tries again
	}
	// After the entries: it shows keys that left their retry before the entries were read.
	p, err := w.cache.Progress(ctx, shard)
	if err != nil {
		return
	}
	offered := make(map[counter.Key]bool)
	w.mu.Lock()
	for _, t := range targets {
		e := entries[t.key]
		if t.hint && e.Dirty(e.watermark) {
			offered[t.key], t.hint = true, false
		}
		if !t.over {
			w.judgeEntry(t, e, p)
		}
	}
	w.mu.Unlock()
	for key := range offered {
		w.hints.Offer(ctx, key, shard, 1)
	}
}

// read reads the entries of targets, and the rows of those that are no longer in Redis.
func (w *waiters) read(ctx context.Context, shard counter.Shard, targets []*target) (map[counter.Key]*inspected, error) {
	entries := make(map[counter.Key]*inspected)
	keys := make([]counter.Key, 0, len(targets))
	for _, t := range targets {
		if _, found := entries[t.key]; !found {
			entries[t.key] = nil
			keys = append(keys, t.key)
		}
	}
	var missing []counter.Key
	for part := range slices.Chunk(keys, maxInspected) {
		snapshot, err := w.cache.Read(ctx, shard, part)
		if err != nil {
			return nil, err
		}
		for _, e := range snapshot.Entries {
			entries[e.Key] = &inspected{Entry: e, watermark: snapshot.Watermark}
			if e.Missing {
				missing = append(missing, e.Key)
			}
		}
	}
	if len(missing) == 0 {
		return entries, nil
	}
	rows, err := w.bases.Read(ctx, missing)
	if err != nil {
		return entries, nil // the next check reads these again
	}
	for key, row := range rows {
		entries[key].row, entries[key].stored = row, true
	}
	return entries, nil
}

// judgeEntry is like judge, but decides by the entry. The lock is held.
func (w *waiters) judgeEntry(t *target, e *inspected, p cache.Progress) {
	passed := t.mark.epoch != 0 && t.mark.epoch <= e.watermark && t.mark.epoch >= p.Requeued
	switch {
	case e.Missing:
		// Only clean entries are evicted. A row of version 0 has the value of the user's column, and no write.
		if e.stored && e.row.Version > 0 && e.row.Version >= t.version {
			t.version = e.row.Version
			w.settle(t, true)
		}
	case e.Corrupt, e.BaseUnknown, e.Version < t.version, e.Aside:
	case !e.Dirty(e.watermark):
		t.version = e.Version
		w.settle(t, true)
	case passed:
		w.settle(t, true) // its version was unknown, but it is older than the entry's
	default:
		t.version = cmp.Or(t.version, e.Version)
		t.mark = mark{epoch: e.Epoch, first: p.First}
	}
}
