package command

import (
	"golang.org/x/sync/errgroup"

	"github.com/afterwrite/afterwrite/dashboard"
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
		Cache: p.cache, Redis: p.redis, Write: p.config.DashboardWrite, Version: programVersion(), Logger: p.log,
	})
	if err != nil {
		return err
	}
	defer p.beat(w.ctx)()
	group, ctx := errgroup.WithContext(w.ctx)
	group.Go(func() error {
		pages.Run(ctx)
		return nil
	})
	group.Go(func() error { return p.serve(ctx, pages) })
	return group.Wait()
}
