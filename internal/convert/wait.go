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
	// lookEvery is the time between two looks at what is waited for.
	lookEvery = 250 * time.Millisecond
	// sayEvery is the time between two lines about it.
	sayEvery = 30 * time.Second
	// startPatience is how long Await waits for a conversion to begin, or to go on.
	startPatience = 2 * time.Minute
	// endPatience is how long Run waits for processes of the old version: that one was killed is seen after 5 s.
	endPatience = 10 * time.Second
	// maxNamed bounds how many processes an error names.
	maxNamed = 10
)

// Await returns when this Redis has layout 3, or is new, or has a layout that cannot be converted. It waits as long as somebody
// converts it, and 2 minutes for somebody to begin.
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

// waiting is a wait for somebody else's conversion.
type waiting struct {
	log      *slog.Logger
	patience time.Duration // while nobody converts; 0: any time

	began, idle, said time.Time // idle: since when nobody converts
}

// pause says what is waited for, and returns after a moment. The error is that it has taken too long, or that of ctx.
func (w *waiting) pause(ctx context.Context, s status) error {
	now := time.Now()
	if w.began.IsZero() {
		w.began, w.idle = now, now
	}
	if s.holder != "" {
		w.idle = now
	}
	if w.patience > 0 && now.Sub(w.idle) > w.patience {
		return fmt.Errorf("waited %s in vain: %w", w.patience, cache.NewLayoutError(s.layout))
	}
	if now.Sub(w.said) > sayEvery {
		w.said = now
		if s.holder != "" {
			w.log.WarnContext(ctx, "waiting: another process converts this Redis to layout "+cache.Layout, "who", s.holder,
				"waited", now.Sub(w.began).Round(time.Second))
		} else {
			w.log.WarnContext(ctx, "waiting for a worker, or `afterwrite migrate`, to convert this Redis to layout "+cache.Layout,
				"for_at_most", w.patience, "waited", now.Sub(w.began).Round(time.Second))
		}
	}
	return pause(ctx, lookEvery)
}

// over says that the wait is over, if it was said that there is one.
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

// RunningError says that processes of the old version run. Processes of this one give no sign of life before the layout is 3.
type RunningError struct{ Processes []health.Heartbeat }

// Error names them, and says what to do.
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
		return nil, fmt.Errorf("ask redis for the time: %w", err)
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

// awaitEnd returns when no process of the old version runs, or with a *RunningError.
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
		if err := pause(ctx, lookEvery); err != nil {
			return err
		}
	}
}

// checkAgain looks for processes that had read the old layout just before it was changed: their first heartbeat comes within a
// second. Nothing has been converted, so it is changed back if there are any.
func (c *converter) checkAgain(ctx context.Context) error {
	if err := pause(ctx, health.HeartbeatEvery+lookEvery); err != nil {
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
