package command

import (
	"context"

	"github.com/afterwrite/afterwrite/dashboard"
	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/config"
)

var dashboardPlan = plan{
	name:       "dashboard",
	variable:   "AFTERWRITE_DASHBOARD_ADDR",
	addr:       func(c config.Config) string { return c.DashboardAddr },
	redisConns: func(config.Config) int { return 10 },
}

type dashboardCommand struct{}

// Run implements the command.
func (dashboardCommand) Run(w *world) error {
	p, err := boot(w, dashboardPlan)
	if err != nil {
		return err
	}
	defer p.close()

	if !dashboard.Loopback(p.address()) {
		p.log.Warn("the dashboard has no login, and other machines can reach it: put a proxy with a login before it",
			"address", p.address(), "write", p.config.DashboardWrite)
	}
	pages, err := dashboard.New(dashboard.Options{
		Sampler: sampled{p.sampler}, Redis: p.redis, Write: p.config.DashboardWrite, Version: programVersion(), Logger: p.log,
	})
	if err != nil {
		return err
	}
	return p.serve(w.ctx, pages)
}

// sampled gives the dashboard numbers that are at most a second old, so that many viewers are as cheap as one.
type sampled struct{ collector *cache.Collector }

// Backlog implements dashboard.Sampler.
func (s sampled) Backlog(ctx context.Context) (cache.Backlog, error) { return s.collector.Sample(ctx) }
