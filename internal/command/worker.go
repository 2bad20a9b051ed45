package command

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/process"
	"github.com/afterwrite/afterwrite/worker"
)

var workerPlan = process.Plan{
	Name:     "worker",
	Variable: "AFTERWRITE_WORKER_ADDR",
	Addr:     func(c config.Config) string { return c.WorkerAddr },
	Pools: func(c config.Config) process.Pools {
		// Each task uses one or two connections to Redis, and Asynq's loops use the rest.
		return process.Pools{Redis: 2*c.WorkerConcurrency + 16, Postgres: c.WorkerConcurrency + 2, Writes: true}
	},
	Converts:     true,
	UsesMappings: true,
}

type workerCommand struct {
	Drain   bool          `help:"Work until nothing is dirty, then end."`
	Timeout time.Duration `default:"0s"                                  help:"How long --drain may take; 0: no limit."`
}

// Validate implements kong's check of a command line.
func (o workerCommand) Validate() error {
	if o.Timeout < 0 || (o.Timeout > 0 && !o.Drain) {
		return errors.New("--timeout needs --drain, and must not be negative")
	}
	return nil
}

// Run implements the command.
func (o workerCommand) Run(w *world) error {
	p, err := process.Start(w.ctx, w.environment(), workerPlan)
	if err != nil {
		return err
	}
	defer p.Close()

	work := worker.New(worker.Options{
		Config: p.Config, Redis: p.Redis, Cache: p.Cache, Store: p.Store, Mappings: p.Mappings, Registerer: p.Counted,
		Logger: p.Log, Tracing: p.Provider(),
	})
	p.BrokenMappings = work.BrokenMappings
	if !o.Drain {
		return p.Run(w.ctx, nil, work.Run)
	}
	ctx, end := context.WithCancel(w.ctx)
	defer end()
	return p.Run(ctx, nil, work.Run, func(ctx context.Context) error {
		defer end()
		return drainUntilClean(ctx, work, "worker --drain "+rand.Text(), o.Timeout)
	})
}

// drainEvery is the pause between two rounds of a worker that ends when nothing is dirty.
const drainEvery = 200 * time.Millisecond

// drainUntilClean drains until only dead letters are dirty, or bound has passed; 0: no bound. It also waits for keys whose retry is due
// later, since this process runs their tasks, and for a Postgres that is down.
func drainUntilClean(ctx context.Context, work *worker.Worker, owner string, bound time.Duration) error {
	if bound > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, bound)
		defer cancel()
	}
	last := int64(-1)
	for {
		_, left, err := work.DrainAll(ctx, owner)
		if err == nil && left == 0 {
			return nil
		}
		if err == nil {
			last = left
		}
		select {
		case <-ctx.Done():
			return notDrained(ctx, bound, last)
		case <-time.After(drainEvery):
		}
	}
}

// notDrained returns the reason why a drain ended early. left is the number of dirty counters; below 0: unknown.
func notDrained(ctx context.Context, bound time.Duration, left int64) error {
	why := "told to stop"
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		why = "not drained after " + bound.String()
	}
	if left < 0 {
		return fmt.Errorf("%s: redis or postgres did not answer", why)
	}
	return fmt.Errorf("%s: %d counters are still dirty", why, left)
}
