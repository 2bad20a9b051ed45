package world

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
)

// gaugeAge is the shortest time between two reads of one process's gauge of dirty keys. A process updates that gauge at most once a
// second, so a faster second read may return the old value.
const gaugeAge = 1050 * time.Millisecond

var (
	errNoProcess = errors.New("no process of afterwrite is running")
	errNoGauge   = errors.New("the metric afterwrite_dirty_keys is missing")
)

// Dirty returns the number of dirty keys from the gauge of a running process. It may block for a second to get a current value.
func (s *Stage) Dirty(ctx context.Context) (int64, error) {
	running := s.running()
	if len(running) == 0 {
		return 0, errNoProcess
	}
	return running[0].dirty(ctx)
}

// running returns the processes that have not ended.
func (s *Stage) running() []*Process {
	return slices.DeleteFunc(slices.Clone(s.processes), func(p *Process) bool { return !p.Running() })
}

// Drained waits for at most bound until no key is dirty.
func (s *Stage) Drained(ctx context.Context, bound time.Duration) error {
	_, err := s.DrainedTo(ctx, 0, bound)
	return err
}

// DrainedTo waits for at most bound until most or fewer keys are dirty. last is the last time when more keys were dirty; it is the
// zero time if there never were more. DrainedTo reads the gauges of all running processes in turn, so the resolution is a second
// divided by their number.
func (s *Stage) DrainedTo(ctx context.Context, most int64, bound time.Duration) (last time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	running := s.running()
	if len(running) == 0 {
		return time.Time{}, errNoProcess
	}
	ticker := time.NewTicker(gaugeAge / time.Duration(len(running)))
	defer ticker.Stop()
	for turn := 0; ; turn++ {
		left, err := running[turn%len(running)].dirty(ctx)
		if err != nil {
			return last, fmt.Errorf("wait for the drain: %w", err)
		}
		if left <= most {
			return last, nil
		}
		last = time.Now()
		select {
		case <-ctx.Done():
			return last, fmt.Errorf("wait for the drain: %d keys are still dirty: %w", left, ctx.Err())
		case <-ticker.C:
		}
	}
}

// dirty reads the gauge, at least gaugeAge after the last read.
func (p *Process) dirty(ctx context.Context) (int64, error) {
	if err := Sleep(ctx, time.Until(p.scraped.Add(gaugeAge))); err != nil {
		return 0, err
	}
	metrics, err := p.Metrics(ctx)
	if err != nil {
		return 0, err
	}
	if _, ok := metrics["afterwrite_dirty_keys"]; !ok {
		return 0, fmt.Errorf("%s: %w", p.Name, errNoGauge)
	}
	return int64(metrics.Sum("afterwrite_dirty_keys")), nil
}

// Backlog reads this version's exact backlog from Redis. It does not wait.
func (s *Stage) Backlog(ctx context.Context) (cache.Backlog, error) { return s.cache.Backlog(ctx) }

// Clean waits for at most bound until no key is dirty, and returns the waiting time and the last backlog. It does not wait for dead
// keys.
func (s *Stage) Clean(ctx context.Context, bound time.Duration) (took time.Duration, last cache.Backlog, err error) {
	began := time.Now()
	var problem error
	err = Await(ctx, bound, "a clean backlog", func(ctx context.Context) (bool, error) {
		var backlog cache.Backlog
		if backlog, problem = s.Backlog(ctx); problem == nil {
			last = backlog
		}
		return problem == nil && backlog.Dirty == 0, nil
	})
	if err != nil {
		err = errors.Join(fmt.Errorf("%w; the last backlog is %+v", err, last), problem)
	}
	return time.Since(began), last, err
}

// Flushed describes the rows of the counters 0, 1, 2 ... that were written since a given time. Each time in it is the start of the
// transaction that wrote a row.
type Flushed struct {
	Rows int64
	Last time.Time // the given time if there are no rows
	// Tenth and Ninetieth are the times by which 10 % and 90 % of the rows were written.
	Tenth, Ninetieth time.Time
}

// FlushedSince evaluates updated_at of the rows. A row that was written twice counts once, with its last time. Postgres and this
// program run on one machine, so they share a clock.
func (s *Stage) FlushedSince(ctx context.Context, since time.Time) (Flushed, error) {
	const query = `
SELECT count(*), coalesce(max(updated_at), $1),
	coalesce(percentile_disc(0.1) WITHIN GROUP (ORDER BY updated_at), $1),
	coalesce(percentile_disc(0.9) WITHIN GROUP (ORDER BY updated_at), $1)
FROM counters WHERE updated_at > $1 AND key LIKE 'counter:%'`
	var f Flushed
	if err := s.DB.QueryRowContext(ctx, query, since).Scan(&f.Rows, &f.Last, &f.Tenth, &f.Ninetieth); err != nil {
		return Flushed{}, fmt.Errorf("read the times of the flushed rows: %w", err)
	}
	return f, nil
}
