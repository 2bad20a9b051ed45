package command

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/worker"
)

var workerPlan = plan{
	name:     "worker",
	variable: "AFTERWRITE_WORKER_ADDR",
	addr:     func(c config.Config) string { return c.WorkerAddr },
	// Each task uses one or two, Asynq's own loops the rest.
	redisConns:    func(c config.Config) int { return 2*c.WorkerConcurrency + 16 },
	postgresConns: func(c config.Config) int { return c.WorkerConcurrency + 2 },
	writes:        true,
	converts:      true,
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
	p, err := boot(w, workerPlan)
	if err != nil {
		return err
	}
	defer p.close()

	work := worker.New(worker.Options{
		Config: p.config, Redis: p.redis, Cache: p.cache, Store: p.store, Registerer: p.counted, Logger: p.log,
		Tracing: p.tracing.Provider(),
	})
	defer p.beat(w.ctx)()
	// Whichever ends first ends the others.
	ending, end := context.WithCancel(w.ctx)
	defer end()
	group, ctx := errgroup.WithContext(ending)
	group.Go(func() error { return work.Run(ctx) })
	group.Go(func() error { return p.serve(ctx, nil) })
	if o.Drain {
		group.Go(func() error {
			defer end()
			return drainUntilClean(ctx, work, "worker --drain "+rand.Text(), o.Timeout)
		})
	}
	return group.Wait()
}
