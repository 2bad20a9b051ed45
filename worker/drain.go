package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// drainLease is how long a drain has the shard for itself without a sign of life: longer than a batch takes, and
	// shorter than what a sweep may be late when the worker dies.
	drainLease = 5 * time.Second

	// extendEvery is how often a drain that is at work says so.
	extendEvery = time.Second

	// maxDrain bounds one drain: half of a task's time-out. What is left gets another.
	maxDrain = 30 * time.Second

	// maxRounds bounds the epochs of one drain: one that was sealed before, the one it seals, and those of keys that were set
	// aside and became due meanwhile.
	maxRounds = 4

	// releaseTimeout bounds the end of a drain, which also runs after its context has ended.
	releaseTimeout = time.Second

	// dropFrom is how many batches an epoch has whose keys are dropped batch by batch, so that whoever goes on after this
	// worker repeats less. It costs Redis 1 µs a key; repeating up to so many costs less.
	dropFrom = 16

	// dropUntil is how much time a drain has left when it begins to drop the keys of any epoch: one that Postgres is too slow
	// for in the time of a drain is then done in several.
	dropUntil = maxDrain * 2 / 3
)

// Drained is what a drain achieved, also when it ended with an error.
type Drained struct {
	Rows     int64         // that Postgres took
	Busy     bool          // another drain had the shard: nothing was done
	Again    time.Duration // when the shard should be drained again, since keys were written meanwhile; 0: need not
	More     bool          // that is at once: there was more to do than a drain may take
	Deferred time.Duration // when the first of those keys is due that are set aside for a short time; 0: none is
}

// Drain flushes the sealed epoch of the shard, if there is one, and then the open one, unless it is younger than minAge and has
// fewer keys than a batch. owner is this drain's name: of two drains of one shard, the later does nothing.
func (f *Flusher) Drain(ctx context.Context, shard counter.Shard, owner string, minAge time.Duration) (Drained, error) {
	d := drain{Flusher: f, shard: shard, taking: cache.Taking{
		Owner: owner, Lease: drainLease, MinAge: minAge, Keys: f.batching.rows(shard),
	}, deadline: time.Now().Add(maxDrain)}
	defer d.release(ctx)
	if err := d.rounds(ctx); err != nil {
		return d.done, fmt.Errorf("drain shard %s: %w", shard, err)
	}
	return d.done, nil
}

// drain is one drain of a shard.
type drain struct {
	*Flusher

	shard    counter.Shard
	taking   cache.Taking
	deadline time.Time
	done     Drained

	taken    bool
	extended time.Time // when the lease was
	endTurn  func()

	unsent error // the first retry that could not be sent

	rows, writes int64 // of what Postgres has got: entries, and writes since the beginnings of their lives
}

// maxWrites bounds the writes that count for one row: a counter that is always dirty has begun its life long ago.
const maxWrites = 100

// writesPerRow is how many writes an average row was made of.
func (d *drain) writesPerRow() float64 {
	if d.rows == 0 {
		return 0
	}
	return float64(d.writes) / float64(d.rows)
}

// rounds flushes one epoch after the other.
func (d *drain) rounds(ctx context.Context) error {
	for range maxRounds {
		switch over, err := d.round(ctx); {
		case errors.Is(err, errDrainTooLong):
			d.more()
			return d.unsent
		case err != nil:
			return err
		case over:
			return d.unsent
		}
	}
	d.more()
	return d.unsent
}

// round flushes one epoch, and reports that there is nothing more to do.
func (d *drain) round(ctx context.Context) (over bool, err error) {
	epoch, err := d.cache.Seal(ctx, d.shard, d.taking)
	if err != nil {
		return true, err
	}
	switch epoch.State {
	case cache.Busy:
		d.done.Busy = !d.taken
		return true, nil
	case cache.Nothing:
	case cache.Early:
		d.again(d.taking.MinAge - time.Duration(epoch.At-epoch.Since)*time.Millisecond)
	case cache.Sealed, cache.Found:
		if !d.taken {
			d.endTurn = d.turns.wait(ctx)
		}
		d.taken, d.extended = true, time.Now()
		if err := d.flushEpoch(ctx, &epoch); err != nil {
			return true, err
		}
	}
	// Asynq rounds times down to whole seconds, so a drain that is to take up keys may be early: it must not be the last.
	wait := time.Duration(epoch.NextDue-epoch.At) * time.Millisecond
	if epoch.NextDue > 0 && wait > 0 && wait <= longestDeferral {
		d.done.Deferred = sooner(d.done.Deferred, wait)
	}
	if epoch.Due > 0 {
		if _, err := d.cache.RequeueDue(ctx, d.shard); err != nil {
			return true, err
		}
		d.taking.MinAge = 0
		return false, nil
	}
	return epoch.State != cache.Found, nil
}

// again has the shard drained again after a while, or sooner.
func (d *drain) again(after time.Duration) {
	d.done.Again = sooner(d.done.Again, max(after, time.Millisecond))
}

// more has the shard drained again at once.
func (d *drain) more() {
	d.done.More = true
	d.again(time.Millisecond)
}

// page is some keys of an epoch, each once, as they were read.
type page struct {
	cache.Snapshot

	keys []counter.Key
}

// flushEpoch flushes all keys of a sealed epoch and commits it. While Postgres has one page, the next is being read.
func (d *drain) flushEpoch(ctx context.Context, epoch *cache.Epoch) error {
	started := time.Now()
	reading, stop := context.WithCancel(ctx)
	defer stop()
	group, reading := errgroup.WithContext(reading)
	pages := make(chan page, 1)
	group.Go(func() error {
		defer close(pages)
		return d.readPages(reading, epoch, pages)
	})
	var failed error
	left := epoch.Keys
	for p := range pages {
		if failed == nil {
			failed = d.flushPage(ctx, epoch, p, left)
		}
		left = max(left-len(p.keys), 0)
		if failed == nil && time.Now().After(d.deadline) && left > 0 {
			failed = errDrainTooLong
		}
		if failed != nil {
			stop() // or a failure would read all that is left of the epoch
		}
	}
	if err := group.Wait(); failed == nil {
		failed = err
	}
	if failed != nil {
		return failed // step: failed
	}
	written, committed, err := d.cache.Commit(ctx, epoch)
	if err != nil {
		return err
	}
	d.batching.epoch(d.shard, time.Since(started), d.writesPerRow())
	if !committed {
		d.logger.WarnContext(ctx, "an epoch was flushed that redis does not know any more: it was restarted, or another was faster",
			"shard", d.shard)
	}
	if written > 0 || !committed {
		d.again(d.batching.pause())
	}
	d.logger.DebugContext(ctx, "flushed", "shard", d.shard, "keys", epoch.Keys, "took", time.Since(started), "meanwhile", written)
	return nil
}

// errDrainTooLong is no failure: what has been dropped is not in the epoch any more, and the next drain goes on.
var errDrainTooLong = errors.New("the epoch is too large for one drain")

// readPages reads the epoch, a page for one statement at a time, and many keys ahead of the pages, in order.
func (d *drain) readPages(ctx context.Context, epoch *cache.Epoch, pages chan<- page) error {
	for cursor, all := uint64(0), false; !all; {
		var keys []counter.Key
		for began := time.Now(); !all && len(keys) < sortedKeys && time.Since(began) < extendEvery; {
			more, next, err := d.cache.EpochKeys(ctx, epoch, cursor, scannedKeys)
			if err != nil {
				return err
			}
			keys = append(keys, more...)
			cursor, all = next, next == 0
		}
		slices.Sort(keys)
		keys = slices.Compact(keys)
		for len(keys) > 0 {
			n := min(d.batching.rows(d.shard), maxPage, len(keys))
			snapshot, err := d.cache.Read(ctx, d.shard, keys[:n])
			if err != nil {
				return err
			}
			select {
			case pages <- page{snapshot, keys[:n:n]}:
			case <-ctx.Done():
				return ctx.Err()
			}
			keys = keys[n:]
		}
	}
	return nil
}

const (
	// sortedKeys is how many keys of an epoch are put in order before the first of them are flushed, some MB. The rows of a
	// statement are close together then, so that Postgres touches fewer pages for it: a million keys take half as long. Fewer where
	// Redis takes longer for them than the time between two extensions of the lease.
	sortedKeys = 1 << 16

	// scannedKeys is how many keys are read at once, in some 0.2 ms of Redis.
	scannedKeys = 1000
)

// maxPage bounds the entries that are read at once: Redis does nothing else meanwhile, and takes some 0.7 µs for each.
const maxPage = 2000

// flushPage brings a page to Postgres. left is how many keys of the epoch are not flushed yet.
func (d *drain) flushPage(ctx context.Context, epoch *cache.Epoch, p page, left int) error {
	done, err := d.flush(ctx, p.Snapshot, false, left)
	d.done.Rows += done.rows
	d.done.Deferred = sooner(d.done.Deferred, done.deferred)
	for _, r := range done.refused {
		unsent, refusedErr := d.retries.refused(ctx, r)
		err = errors.Join(err, refusedErr)
		d.unsent = cmp.Or(d.unsent, unsent)
	}
	if err != nil {
		return err
	}
	d.metrics.lag(len(done.committed), epoch)
	d.rows += int64(len(done.committed))
	for i := range done.committed {
		d.writes += min(done.committed[i].Version-done.committed[i].Base, maxWrites)
	}
	if time.Since(d.extended) > extendEvery {
		d.extended = time.Now()
		if err := d.cache.Extend(ctx, d.shard, drainLease); err != nil {
			return err
		}
	}
	if epoch.Keys < dropFrom*d.batching.rows(d.shard) && time.Until(d.deadline) > dropUntil {
		return nil
	}
	_, err = d.cache.Drop(ctx, epoch, p.keys)
	return err
}

// release gives the shard back.
func (d *drain) release(ctx context.Context) {
	if !d.taken {
		return
	}
	defer d.endTurn()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if err := d.cache.Release(ctx, d.shard, d.taking.Owner); err != nil {
		d.logger.Warn("cannot release a drained shard; it is free again in "+drainLease.String(), "shard", d.shard, "error", err)
	}
}

// DrainAll drains every shard, some at once, and reports what Postgres took and how many keys are still dirty.
func (f *Flusher) DrainAll(ctx context.Context, owner string) (rows, left int64, err error) {
	const atOnce = 4
	drained := make([]Drained, f.cache.Shards())
	var group errgroup.Group // a shard that fails does not keep the others from being drained
	group.SetLimit(atOnce)
	for i := range drained {
		group.Go(func() error { return f.drainWhole(ctx, counter.Shard(i), owner, &drained[i]) })
	}
	err = group.Wait()
	for _, d := range drained {
		rows += d.Rows
	}
	backlog, countErr := f.cache.Backlog(context.WithoutCancel(ctx))
	if err == nil {
		err = countErr
	}
	return rows, backlog.Dirty, err
}

// drainWhole drains a shard, however large its epoch is.
func (f *Flusher) drainWhole(ctx context.Context, shard counter.Shard, owner string, sum *Drained) error {
	for {
		d, err := f.Drain(ctx, shard, owner, 0)
		sum.Rows += d.Rows
		if err != nil || !d.More {
			return err
		}
	}
}
