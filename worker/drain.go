package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// drainLease is the lease of a drained shard: longer than a batch takes, and shorter than the delay of a sweep if the worker dies.
	drainLease = 5 * time.Second

	// extendEvery is how often a drain renews its lease.
	extendEvery = time.Second

	// maxDrain bounds one drain: half of a task's time-out. Another drain does the rest.
	maxDrain = 30 * time.Second

	// maxRounds bounds the epochs of one drain: one that was sealed before, the one that it seals, and the epochs of set-aside keys that
	// became due meanwhile.
	maxRounds = 4

	// releaseTimeout bounds one try to release a shard, which runs even after the drain's context has ended. While Redis fails over it is
	// repeated each releaseEvery until the lease ends: otherwise the shard would wait for that after the failover.
	releaseTimeout = time.Second
	releaseEvery   = 200 * time.Millisecond

	// busyDelay is how long a drain waits before it asks again for a shard that another drain has.
	busyDelay = 500 * time.Millisecond

	// patience is how long a drain waits for its turn.
	patience = 50 * time.Millisecond
)

// Drained is the result of a drain, even of one that failed.
type Drained struct {
	Rows     int64         // rows written to Postgres
	Again    time.Duration // wait before the next drain: keys were written meanwhile, or another drain had the shard; 0: no need
	More     bool          // drain again at once: one drain may not do all of it
	Deferred time.Duration // time until the first deferred key of the shard is due; 0: there is none
}

// Drain flushes the sealed epoch of the shard, if there is one, and then the open epoch, unless it is younger than minAge and has fewer
// keys than a batch. owner is the name of this drain: while another owner drains the shard, it only requests another drain. It blocks for
// about 30 s at most.
func (f *Flusher) Drain(ctx context.Context, shard counter.Shard, owner string, minAge time.Duration) (Drained, error) {
	d := drain{Flusher: f, shard: shard, taking: cache.Taking{
		Owner: owner, Lease: drainLease, MinAge: minAge, Keys: f.batching.rows(shard),
	}, deadline: time.Now().Add(cmp.Or(f.longest, maxDrain))}
	defer d.release(ctx)
	over, err := false, error(nil)
	for rounds := 0; !over && err == nil && rounds < maxRounds; rounds++ {
		over, err = d.round(ctx)
	}
	if errors.Is(err, errDrainTooLong) || (!over && err == nil) {
		d.done.More, err = true, nil
		d.again(time.Millisecond)
	}
	if err = cmp.Or(err, d.unsent); err != nil {
		return d.done, fmt.Errorf("drain shard %s: %w", shard, err)
	}
	return d.done, nil
}

// errDrainTooLong ends a drain that has used up its time. The next drain continues with the keys that were not dropped from the epoch.
var errDrainTooLong = errors.New("the epoch is too large for one drain")

// drain is one drain of a shard.
type drain struct {
	*Flusher

	shard    counter.Shard
	taking   cache.Taking
	deadline time.Time
	done     Drained

	taken    bool
	extended time.Time // when the lease was last extended
	endTurn  func()

	unsent error // the first retry that could not be sent

	rows, writes int64 // entries written to Postgres, and writes in their lineages
}

// round flushes one epoch. It reports true if nothing is left to do.
func (d *drain) round(ctx context.Context) (over bool, err error) {
	epoch, err := d.cache.Seal(ctx, d.shard, d.taking)
	if err != nil {
		return true, err
	}
	switch epoch.State {
	case cache.Busy:
		// The other drain may have sealed its epoch before the keys of this one's hint were written, and nobody else drains them.
		if !d.taken {
			d.again(busyDelay)
		}
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
	// Asynq rounds times down to whole seconds, so the drain of deferred keys may be early. Then it must request another.
	wait := time.Duration(epoch.NextDue-epoch.At) * time.Millisecond
	if epoch.NextDue > 0 && wait > 0 && wait <= longestDeferral {
		d.done.Deferred = sooner(d.done.Deferred, wait)
	}
	if epoch.Due > 0 {
		_, err := d.cache.RequeueDue(ctx, d.shard)
		d.taking.MinAge = 0
		return false, err
	}
	return epoch.State != cache.Found, nil
}

// again requests another drain of the shard after a duration. The earliest request counts.
func (d *drain) again(after time.Duration) {
	d.done.Again = sooner(d.done.Again, max(after, time.Millisecond))
}

// release ends the turn and the lease. If Redis does not answer, it blocks until the lease has ended or ctx has.
func (d *drain) release(ctx context.Context) {
	if !d.taken {
		return
	}
	d.endTurn()
	ended := time.Now().Add(drainLease)
	err := d.tryRelease(ctx)
	for cache.Away(err) && time.Now().Before(ended) && waitFor(ctx, jittered(releaseEvery)) {
		err = d.tryRelease(ctx)
	}
	if err != nil {
		d.logger.Warn("cannot release a drained shard; its lease ends in "+drainLease.String(), "shard", d.shard, "error", err)
	}
}

func (d *drain) tryRelease(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	return d.cache.Release(ctx, d.shard, d.taking.Owner)
}

// DrainAll drains every shard, a few at once, and returns the numbers of rows written to Postgres and of keys still dirty.
func (f *Flusher) DrainAll(ctx context.Context, owner string) (rows, left int64, err error) {
	const atOnce = 4
	drained := make([]int64, f.cache.Shards())
	var group errgroup.Group // a failing shard does not stop the others
	group.SetLimit(atOnce)
	for i := range drained {
		group.Go(func() error {
			for {
				d, err := f.Drain(ctx, counter.Shard(i), owner, 0)
				drained[i] += d.Rows
				if err != nil || !d.More {
					return err
				}
			}
		})
	}
	err = group.Wait()
	for _, n := range drained {
		rows += n
	}
	backlog, countErr := f.cache.Backlog(context.WithoutCancel(ctx))
	if err == nil {
		err = countErr
	}
	return rows, backlog.Dirty, err
}

// turns makes the drains of a process run one after the other while each is short: concurrent drains would not end sooner, and would take
// CPU time from Postgres and Redis. A drain that has waited for patience runs anyway, so drains overlap if Postgres is slow or far away.
// With nil turns no drain waits.
type turns chan struct{}

func newTurns() turns { return make(turns, 1) }

// wait blocks until it is this drain's turn, or it has waited for patience, or ctx ends. Call end when the drain is done.
func (t turns) wait(ctx context.Context) (end func()) {
	if t == nil {
		return func() {}
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case t <- struct{}{}:
		return func() { <-t }
	case <-timer.C:
	case <-ctx.Done():
	}
	return func() {}
}
