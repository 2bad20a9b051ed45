package command

import (
	"github.com/hibiken/asynq"
	"golang.org/x/sync/errgroup"

	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/scheduler"
)

var schedulerPlan = plan{
	name:       "scheduler",
	variable:   "AFTERWRITE_SCHEDULER_ADDR",
	addr:       func(c config.Config) string { return c.SchedulerAddr },
	redisConns: func(config.Config) int { return 10 },
}

type schedulerCommand struct{}

// Run implements the command.
func (schedulerCommand) Run(w *world) error {
	p, err := boot(w, schedulerPlan)
	if err != nil {
		return err
	}
	defer p.close()

	// The queues are the same seen from every process: one exports them.
	p.registry.MustRegister(newQueues(p.redis, p.log))
	defer p.beat(w.ctx)()
	group, ctx := errgroup.WithContext(w.ctx)
	group.Go(func() error {
		return scheduler.Run(ctx, scheduler.Options{
			Client: asynq.NewClientFromRedisClient(p.redis), Redis: p.redis,
			SweepInterval: p.config.SweepInterval, CleanTTL: p.config.CleanTTL,
			Logger: p.log, Registerer: p.counted,
		})
	})
	group.Go(func() error { return p.serve(ctx, nil) })
	return group.Wait()
}
