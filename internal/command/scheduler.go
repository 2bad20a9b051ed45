package command

import (
	"context"

	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/process"
	"github.com/afterwrite/afterwrite/scheduler"
	"github.com/afterwrite/afterwrite/tasks"
)

var schedulerPlan = process.Plan{
	Name:     "scheduler",
	Variable: "AFTERWRITE_SCHEDULER_ADDR",
	Addr:     func(c config.Config) string { return c.SchedulerAddr },
	Pools:    func(config.Config) process.Pools { return process.Pools{Redis: 10} },
}

type schedulerCommand struct{}

// Run implements the command.
func (schedulerCommand) Run(w *world) error {
	p, err := process.Start(w.ctx, w.environment(), schedulerPlan)
	if err != nil {
		return err
	}
	defer p.Close()

	p.Registry.MustRegister(scheduler.NewQueues(p.Redis, p.Config.Prefix(), p.Log))
	return p.Run(w.ctx, nil, func(ctx context.Context) error {
		return scheduler.Run(ctx, scheduler.Options{
			Client: tasks.NewSender(p.Redis, p.Config.Prefix()), Redis: p.Redis, Prefix: p.Config.Prefix(),
			SweepInterval: p.Config.SweepInterval, CleanTTL: p.Config.CleanTTL,
			Logger: p.Log, Registerer: p.Counted,
		})
	})
}
