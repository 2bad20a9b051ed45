package command

import (
	"context"
	"crypto/rand"
	"errors"
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
		// Each task uses one or two connections to Redis, and Asynq's own loops the rest.
		return process.Pools{Redis: 2*c.WorkerConcurrency + 16, Postgres: c.WorkerConcurrency + 2, Writes: true}
	},
	Converts: true,
}

type workerCommand struct {
	Drain   bool          `help:"Work until nothing is dirty, then end."`
	Timeout time.Duration `default:"0s"                                  help:"How long --drain may take; 0: any time."`
}

// Validate implements kong's check of a command line.
func (o workerCommand) Validate() error {
	if o.Timeout < 0 || (o.Timeout > 0 && !o.Drain) {
		return errors.New("--timeout is for --drain, and not negative")
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
		Config: p.Config, Redis: p.Redis, Cache: p.Cache, Store: p.Store, Registerer: p.Counted, Logger: p.Log,
		Tracing: p.Provider(),
	})
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
