package command

import (
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
}

type workerCommand struct{}

// Run implements the command.
func (workerCommand) Run(w *world) error {
	p, err := boot(w, workerPlan)
	if err != nil {
		return err
	}
	defer p.close()

	work := worker.New(worker.Options{
		Config: p.config, Redis: p.redis, Cache: p.cache, Store: p.store, Registerer: p.registry, Logger: p.log,
	})
	// Whichever ends first ends the other.
	group, ctx := errgroup.WithContext(w.ctx)
	group.Go(func() error { return work.Run(ctx) })
	group.Go(func() error { return p.serve(ctx, nil) })
	return group.Wait()
}
