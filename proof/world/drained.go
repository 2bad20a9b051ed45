package world

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
)

// gaugeAge is the age that a process's gauge of dirty keys may have: it asks Redis at most once a second. So each process is asked
// less often than that, and several are asked in turn.
const gaugeAge = 1050 * time.Millisecond

var (
	errNobody  = errors.New("no process of afterwrite is running that could be asked")
	errNoGauge = errors.New("it exports no afterwrite_dirty_keys")
)

// Dirty is the number of dirty keys, from the gauge of a running process. It is up to date, and may block for a second.
func (s *Stage) Dirty(ctx context.Context) (int64, error) {
	running := s.running()
	if len(running) == 0 {
		return 0, errNobody
	}
	return running[0].dirty(ctx)
}

// running returns the processes that have not ended.
func (s *Stage) running() []*Process {
	return slices.DeleteFunc(slices.Clone(s.processes), func(p *Process) bool { return !p.Running() })
}

// Drained waits until no key is dirty, for bound at most.
func (s *Stage) Drained(ctx context.Context, bound time.Duration) error {
	_, err := s.DrainedTo(ctx, 0, bound)
	return err
}

// DrainedTo waits until no more than most keys are dirty, for bound at most. more is the last time when it saw more; zero if it never
// did. The processes are asked in turn, so the resolution is a second divided by their number.
func (s *Stage) DrainedTo(ctx context.Context, most int64, bound time.Duration) (more time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	running := s.running()
	if len(running) == 0 {
		return time.Time{}, errNobody
	}
	ticker := time.NewTicker(gaugeAge / time.Duration(len(running)))
	defer ticker.Stop()
	for turn := 0; ; turn++ {
		left, err := running[turn%len(running)].dirty(ctx)
		if err != nil {
			return more, fmt.Errorf("wait for the drain: %w", err)
		}
		if left <= most {
			return more, nil
		}
		more = time.Now()
		select {
		case <-ctx.Done():
			return more, fmt.Errorf("wait for the drain, with %d keys left: %w", left, ctx.Err())
		case <-ticker.C:
		}
	}
}

// dirty reads the gauge, at least a second after the last time.
func (p *Process) dirty(ctx context.Context) (int64, error) {
	timer := time.NewTimer(time.Until(p.scraped.Add(gaugeAge)))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-timer.C:
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

// Backlog is the backlog of this version, read from Redis: exact, and at once.
func (s *Stage) Backlog(ctx context.Context) (cache.Backlog, error) { return s.cache.Backlog(ctx) }

// Clean waits until no key is dirty, for bound at most, and returns how long that took and the last backlog that it saw. Dead
// keys are not waited for.
func (s *Stage) Clean(ctx context.Context, bound time.Duration) (took time.Duration, last cache.Backlog, err error) {
	began := time.Now()
	var problem error
	err = Await(ctx, bound, "postgres to have everything", func(ctx context.Context) (bool, error) {
		var backlog cache.Backlog
		if backlog, problem = s.Backlog(ctx); problem == nil {
			last = backlog
		}
		return problem == nil && backlog.Dirty == 0, nil
	})
	if err != nil {
		err = errors.Join(fmt.Errorf("%w, with %+v left", err, last), problem)
	}
	return time.Since(began), last, err
}

// Flushed describes the rows that were written since a moment, of the counters that Key names. Its times are the beginnings of
// transactions.
type Flushed struct {
	Rows int64
	Last time.Time // the zero time if there are none
	// Tenth and Ninetieth are when 10 % and 90 % of the rows were there.
	Tenth, Ninetieth time.Time
}

// FlushedSince reads the rows' updated_at. A row that was written twice counts once, with its last time. Postgres and this program
// use the same clock, because they are on one machine.
func (s *Stage) FlushedSince(ctx context.Context, since time.Time) (Flushed, error) {
	const query = `
SELECT count(*), coalesce(max(updated_at), $1),
	coalesce(percentile_disc(0.1) WITHIN GROUP (ORDER BY updated_at), $1),
	coalesce(percentile_disc(0.9) WITHIN GROUP (ORDER BY updated_at), $1)
FROM counters WHERE updated_at > $1 AND key LIKE 'counter:%'`
	var f Flushed
	if err := s.DB.QueryRowContext(ctx, query, since).Scan(&f.Rows, &f.Last, &f.Tenth, &f.Ninetieth); err != nil {
		return Flushed{}, fmt.Errorf("ask when rows were written: %w", err)
	}
	return f, nil
}
