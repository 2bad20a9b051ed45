package convert

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/health"
)

const (
	// pollEvery is the time between two checks during a wait.
	pollEvery = 250 * time.Millisecond
	// logEvery is the time between two log lines about a wait.
	logEvery = 30 * time.Second
	// startPatience is how long Await waits for a conversion to begin, or to continue.
	startPatience = 2 * time.Minute
	// endPatience is how long Run waits for processes of the old version to end. A killed process counts as running for 5 s.
	endPatience = 10 * time.Second
	// maxNamed bounds the processes that an error names.
	maxNamed = 10
)

// Await waits until this Redis needs no conversion: it has layout 3, is new, or has a layout that cannot be converted. While a process
// converts, it waits without a limit; for a process to begin, 2 minutes.
func Await(ctx context.Context, client redis.UniversalClient, log *slog.Logger) error {
	w := waiting{log: log, patience: startPatience}
	for {
		s, err := read(ctx, client)
		if err != nil {
			return err
		}
		if s.layout != cache.PreviousLayout && s.layout != cache.ConvertingLayout {
			w.over()
			return nil
		}
		if err := w.pause(ctx, s); err != nil {
			return err
		}
	}
}

// waiting is a wait for the conversion by another process.
type waiting struct {
	log      *slog.Logger
	patience time.Duration // the limit while no process converts; 0: none

	began, idle, said time.Time // idle: since when no process converts
}

// pause logs the wait from time to time, and returns after pollEvery. It returns an error after patience, or if ctx is done.
func (w *waiting) pause(ctx context.Context, s status) error {
	now := time.Now()
	if w.began.IsZero() {
		w.began, w.idle = now, now
	}
	if s.holder != "" {
		w.idle = now
	}
	if w.patience > 0 && now.Sub(w.idle) > w.patience {
		return fmt.Errorf("no conversion began within %s: %w", w.patience, cache.NewLayoutError(s.layout))
	}
	if now.Sub(w.said) > logEvery {
		w.said = now
		if s.holder != "" {
			w.log.WarnContext(ctx, "waiting: another process converts this Redis to layout "+cache.Layout, "who", s.holder,
				"waited", now.Sub(w.began).Round(time.Second))
		} else {
			w.log.WarnContext(ctx, "waiting for a worker, or `afterwrite migrate`, to convert this Redis to layout "+cache.Layout,
				"for_at_most", w.patience, "waited", now.Sub(w.began).Round(time.Second))
		}
	}
	return pause(ctx, pollEvery)
}

// over logs the end of a wait, if pause has logged the wait.
func (w *waiting) over() {
	if !w.said.IsZero() {
		w.log.Info("this Redis has layout "+cache.Layout+" now", "waited", time.Since(w.began).Round(time.Second))
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// RunningError reports running processes of the old version. Processes of this version send no heartbeats before the layout is 3.
type RunningError struct{ Processes []health.Heartbeat }

// Error names the processes, and tells the user what to do.
func (e *RunningError) Error() string {
	names := make([]string, 0, maxNamed+1)
	for i, p := range e.Processes {
		if i == maxNamed {
			names = append(names, fmt.Sprintf("%d more", len(e.Processes)-i))
			break
		}
		names = append(names, fmt.Sprintf("%s %s on %s (pid %d)", p.Role, p.Version, p.Host, p.PID))
	}
	return fmt.Sprintf("this Redis is not converted to layout %s while processes of the old version use it: %s: "+
		"stop them, and run this again", cache.Layout, strings.Join(names, ", "))
}

// running returns the processes whose heartbeat is recent.
func (c *converter) running(ctx context.Context) ([]health.Heartbeat, error) {
	now, err := c.Redis.Time(ctx).Result()
	if err != nil {
		return nil, fmt.Errorf("read the clock of redis: %w", err)
	}
	all, err := health.ReadHeartbeats(ctx, c.Redis, "", now.UnixMilli())
	if err != nil {
		return nil, err
	}
	var alive []health.Heartbeat
	for _, p := range all {
		if p.Alive() {
			alive = append(alive, p)
		}
	}
	return alive, nil
}

// awaitEnd waits until no process of the old version runs, or returns a *RunningError.
func (c *converter) awaitEnd(ctx context.Context) error {
	for began, said := time.Now(), false; ; {
		alive, err := c.running(ctx)
		if err != nil || len(alive) == 0 {
			return err
		}
		if time.Since(began) > endPatience {
			return &RunningError{Processes: alive}
		}
		if !said {
			said = true
			c.Logger.WarnContext(ctx, "waiting for processes of the old version to end", "processes", len(alive),
				"for_at_most", endPatience)
		}
		if err := c.renew(ctx); err != nil {
			return err
		}
		if err := pause(ctx, pollEvery); err != nil {
			return err
		}
	}
}

// checkAgain checks for processes of the old version that read the layout just before it changed. They send a heartbeat within a
// second. If there are any, it restores the layout, since nothing was converted yet.
func (c *converter) checkAgain(ctx context.Context) error {
	if err := pause(ctx, health.HeartbeatEvery+pollEvery); err != nil {
		return err
	}
	alive, err := c.running(ctx)
	if err != nil || len(alive) == 0 {
		return err
	}
	if _, err := c.hold(ctx, "unmark"); err != nil {
		return err
	}
	return &RunningError{Processes: alive}
}
