package command

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/afterwrite/afterwrite/dashboard"
	"github.com/afterwrite/afterwrite/dashboard/auth"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/process"
)

var dashboardPlan = process.Plan{
	Name:     "dashboard",
	Variable: "AFTERWRITE_DASHBOARD_ADDR",
	Addr:     func(c config.Config) string { return c.DashboardAddr },
	Pools:    func(config.Config) process.Pools { return process.Pools{Redis: 10, Postgres: 4} },
}

// dashboardCommand is the process, and what prepares it.
type dashboardCommand struct {
	Serve        serveDashboardCommand `cmd:"" default:"1"                          help:"Serve the web pages for operators."`
	HashPassword hashPasswordCommand   `cmd:"" help:"Make a user of the dashboard." name:"hash-password"`
}

type serveDashboardCommand struct{}

// Run implements the command.
func (serveDashboardCommand) Run(w *world) error {
	allowed, err := whoMay(w)
	if err != nil {
		return err
	}
	p, err := process.Start(w.ctx, w.environment(), withDoor(dashboardPlan, allowed))
	if err != nil {
		return err
	}
	defer p.Close()

	pages, err := dashboard.New(dashboard.Options{
		Cache: p.Cache, Redis: p.Redis, Store: p.Store, Write: p.Config.DashboardWrite,
		Access: allowed, Version: programVersion(), Logger: p.Log,
	})
	if err != nil {
		return explainOpen(err)
	}
	return p.Run(w.ctx, pages, func(ctx context.Context) error {
		pages.Run(ctx)
		return nil
	})
}

// whoMay reads who may look and act, and refuses an open door, before anything is waited for.
func whoMay(w *world) (auth.Options, error) {
	c, err := config.FromMap(environMap(w.environ))
	if err != nil {
		return auth.Options{}, err
	}
	o := auth.Options{Address: c.Addr(c.DashboardAddr), Header: c.DashboardUserHeader, Hosts: words(c.DashboardHosts)}
	var users, proxies, operators error
	o.Users, users = auth.ParseUsers(c.DashboardUsers)
	o.Proxies, proxies = auth.ParseProxies(c.DashboardTrustedProxies)
	o.Operators, operators = auth.ParseNames(c.DashboardOperators)
	err = errors.Join(
		about("AFTERWRITE_DASHBOARD_USERS", users),
		about("AFTERWRITE_DASHBOARD_TRUSTED_PROXIES", proxies),
		about("AFTERWRITE_DASHBOARD_OPERATORS", operators),
	)
	if err == nil {
		err = explainOpen(o.Check())
	}
	return o, err
}

// withDoor also refuses an open door where the address was a name, like localhost, that the system has resolved to another address
// than this machine's own.
func withDoor(p process.Plan, allowed auth.Options) process.Plan {
	p.Refuse = func(at net.Addr) error {
		taken := allowed
		taken.Address = at.String()
		return explainOpen(taken.Check())
	}
	return p
}

func about(variable string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", variable, err)
}

// explainOpen says what to do about a door that is open.
func explainOpen(err error) error {
	if errors.Is(err, auth.ErrOpen) {
		return fmt.Errorf("refusing to start: %w: set AFTERWRITE_DASHBOARD_USERS (make one with `afterwrite dashboard hash-password`), "+
			"or AFTERWRITE_DASHBOARD_TRUSTED_PROXIES and AFTERWRITE_DASHBOARD_USER_HEADER", err)
	}
	return err
}

// words splits a list at its commas.
func words(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}
