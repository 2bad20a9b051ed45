package worker

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// sortedKeys bounds the keys of an epoch that are sorted before the first are flushed; they need a few MB. The rows of a statement are
	// then close together, so Postgres touches fewer pages: a million keys take half as long. Fewer keys are sorted if Redis needs longer
	// for them than the time between two renewals of the lease.
	sortedKeys = 1 << 16

	// scannedKeys is the number of keys that one call reads, which blocks Redis for about 0.2 ms.
	scannedKeys = 1000

	// maxPage bounds the entries that one call reads, which blocks Redis for about 0.7 µs an entry.
	maxPage = 2000

	// dropFrom is the number of batches that makes an epoch large: its keys are dropped batch by batch, so that a worker that takes over
	// repeats less. Dropping costs Redis 1 µs a key; repeating a smaller epoch costs less.
	dropFrom = 16

	// dropUntil is the remaining time below which a drain drops the keys of any epoch batch by batch, so that several drains can flush it
	// while Postgres is slow.
	dropUntil = maxDrain * 2 / 3

	// maxWrites bounds the writes that count for one row: the lineage of a counter that is always dirty has very many.
	maxWrites = 100
)

// page holds some keys of an epoch, each once, and their entries.
type page struct {
	cache.Snapshot

	keys []counter.Key
}

// flushEpoch flushes all keys of a sealed epoch and commits it. It reads the next page while Postgres writes one.
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
			stop() // so that it does not read the rest of the epoch
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
		d.logger.WarnContext(ctx, "redis no longer has the flushed epoch: redis was restarted, or another drain was faster",
			"shard", d.shard)
	}
	if written > 0 || !committed {
		d.again(d.batching.pause())
	}
	d.logger.DebugContext(ctx, "flushed", "shard", d.shard, "keys", epoch.Keys, "took", time.Since(started), "meanwhile", written)
	return nil
}

// readPages reads the epoch into pages, each for one statement. It reads many keys ahead of the pages and sorts them.
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

// flushPage flushes a page, sets refused keys aside, and renews the lease. left is the number of keys of the epoch that are not flushed
// yet.
func (d *drain) flushPage(ctx context.Context, epoch *cache.Epoch, p page, left int) error {
	done, err := d.flush(ctx, p.Snapshot, false, left, d.proceed)
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
	if err := d.extend(ctx); err != nil {
		return err
	}
	if epoch.Keys < dropFrom*d.batching.rows(d.shard) && time.Until(d.deadline) > dropUntil {
		return nil
	}
	_, err = d.cache.Drop(ctx, epoch, p.keys)
	return err
}

// extend renews the lease if that is due.
func (d *drain) extend(ctx context.Context) error {
	if time.Since(d.extended) <= extendEvery {
		return nil
	}
	d.extended = time.Now()
	return d.cache.Extend(ctx, d.shard, drainLease)
}

// proceed is called between the parts of a page. It ends a drain that has used up its time, and renews the lease.
func (d *drain) proceed(ctx context.Context) error {
	if time.Now().After(d.deadline) {
		return errDrainTooLong
	}
	return d.extend(ctx)
}

// writesPerRow returns the average number of writes per row.
func (d *drain) writesPerRow() float64 {
	if d.rows == 0 {
		return 0
	}
	return float64(d.writes) / float64(d.rows)
}
