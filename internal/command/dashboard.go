package command

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/afterwrite/afterwrite/dashboard"
	"github.com/afterwrite/afterwrite/internal/access"
	"github.com/afterwrite/afterwrite/internal/config"
)

var dashboardPlan = plan{
	name:          "dashboard",
	variable:      "AFTERWRITE_DASHBOARD_ADDR",
	addr:          func(c config.Config) string { return c.DashboardAddr },
	redisConns:    func(config.Config) int { return 10 },
	postgresConns: func(config.Config) int { return 4 },
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
	p, err := boot(w, withDoor(dashboardPlan, allowed))
	if err != nil {
		return err
	}
	defer p.close()

	pages, err := dashboard.New(dashboard.Options{
		Cache: p.cache, Redis: p.redis, Store: p.store, Write: p.config.DashboardWrite,
		Access: allowed, Version: programVersion(), Logger: p.log,
	})
	if err != nil {
		return explainOpen(err)
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

// whoMay reads who may look and act, and refuses an open door, before anything is waited for.
func whoMay(w *world) (access.Options, error) {
	c, err := config.FromMap(environMap(w.environ))
	if err != nil {
		return access.Options{}, err
	}
	o := access.Options{Address: c.Addr(c.DashboardAddr), Header: c.DashboardUserHeader, Hosts: words(c.DashboardHosts)}
	var users, proxies, operators error
	o.Users, users = access.ParseUsers(c.DashboardUsers)
	o.Proxies, proxies = access.ParseProxies(c.DashboardTrustedProxies)
	o.Operators, operators = access.ParseNames(c.DashboardOperators)
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
func withDoor(p plan, allowed access.Options) plan {
	p.refuse = func(at net.Addr) error {
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
	if errors.Is(err, access.ErrOpen) {
		return fmt.Errorf("refusing to start: %w: set AFTERWRITE_DASHBOARD_USERS (make one with `afterwrite dashboard hash-password`), "+
			"or AFTERWRITE_DASHBOARD_TRUSTED_PROXIES and AFTERWRITE_DASHBOARD_USER_HEADER", err)
	}
	return err
}

// words splits a list at its commas.
func words(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}
