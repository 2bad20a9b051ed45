package command

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/dashboard"
	"github.com/afterwrite/afterwrite/dashboard/auth"
	"github.com/afterwrite/afterwrite/internal/catalog"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/process"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

var dashboardPlan = process.Plan{
	Name:     "dashboard",
	Variable: "AFTERWRITE_DASHBOARD_ADDR",
	Addr:     func(c config.Config) string { return c.DashboardAddr },
	Pools:    func(config.Config) process.Pools { return process.Pools{Redis: 10, Postgres: 4} },
	Refuse:   refuseOpen,
}

// dashboardCommand is the process, and the command that makes users for it.
type dashboardCommand struct {
	Serve        serveDashboardCommand `cmd:"" default:"1"                          help:"Serve the web pages for operators."`
	HashPassword hashPasswordCommand   `cmd:"" help:"Make a user of the dashboard." name:"hash-password"`
}

type serveDashboardCommand struct{}

// Run implements the command.
func (serveDashboardCommand) Run(w *world) error {
	p, err := process.Start(w.ctx, w.environment(), dashboardPlan)
	if err != nil {
		return err
	}
	defer p.Close()

	allowed, err := access(p.Config)
	if err != nil {
		return err
	}
	// A list reads the counters whose base is unknown in Redis as the api does. It is by value if Postgres has the index for that.
	service := writepath.Open(writepath.Parts{Cache: p.Cache, Store: p.Store, Tracing: p.Provider()})
	defer service.Close()
	lists := catalog.New(catalog.Options{Cache: p.Cache, Store: p.Store, Counters: service, TopEnabled: true})
	pages, err := dashboard.New(dashboard.Options{
		Cache: p.Cache, Redis: p.Redis, Store: p.Store, Mappings: p.Mappings, Write: p.Config.DashboardWrite,
		Lister: lists, Historian: lists, Access: allowed, Version: programVersion(), Explain: api.Explain, Logger: p.Log,
	})
	if err != nil {
		return explainOpen(err)
	}
	return p.Run(w.ctx, pages, func(ctx context.Context) error {
		pages.Run(ctx)
		return nil
	})
}

// access parses the settings for sign-in and roles.
func access(c config.Config) (auth.Options, error) {
	o := auth.Options{Address: c.Addr(c.DashboardAddr), Header: c.DashboardUserHeader, Hosts: config.Words(c.DashboardHosts)}
	var users, proxies, operators error
	o.Users, users = auth.ParseUsers(c.DashboardUsers)
	o.Proxies, proxies = auth.ParseProxies(c.DashboardTrustedProxies)
	o.Operators, operators = auth.ParseNames(c.DashboardOperators)
	return o, errors.Join(
		about("AFTERWRITE_DASHBOARD_USERS", users),
		about("AFTERWRITE_DASHBOARD_TRUSTED_PROXIES", proxies),
		about("AFTERWRITE_DASHBOARD_OPERATORS", operators),
	)
}

// refuseOpen returns an error if other machines could reach the dashboard without a sign-in.
func refuseOpen(c config.Config, at net.Addr) error {
	allowed, err := access(c)
	if err != nil {
		return err
	}
	return explainOpen(atBoth(allowed.Address, at, func(address string) error {
		allowed.Address = address
		return allowed.Check()
	}))
}

// atBoth checks the configured address and then the resolved one, since a hosts file may resolve a name like localhost to any address.
func atBoth(configured string, at net.Addr, check func(address string) error) error {
	if err := check(configured); err != nil {
		return err
	}
	return check(at.String())
}

func about(variable string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", variable, err)
}

// explainOpen adds the fix to auth.ErrOpen.
func explainOpen(err error) error {
	if errors.Is(err, auth.ErrOpen) {
		return fmt.Errorf("refusing to start: %w: set AFTERWRITE_DASHBOARD_USERS (make one with `afterwrite dashboard hash-password`), "+
			"or AFTERWRITE_DASHBOARD_TRUSTED_PROXIES and AFTERWRITE_DASHBOARD_USER_HEADER", err)
	}
	return err
}
