package up

import (
	"fmt"
	"net"

	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/process"
)

// place is where one process listens.
type place struct {
	process  string // its subcommand
	variable string // that moves it
	addr     string
}

// places are the addresses of the four processes. PORT is for the one that the outside world talks to.
func places(c config.Config) []place {
	api := place{process: "api", variable: "AFTERWRITE_API_ADDR", addr: c.Addr(c.APIAddr)}
	if c.Port != 0 {
		api.variable = "PORT"
	}
	return []place{
		api,
		{process: "worker", variable: "AFTERWRITE_WORKER_ADDR", addr: c.WorkerAddr},
		{process: "scheduler", variable: "AFTERWRITE_SCHEDULER_ADDR", addr: c.SchedulerAddr},
		{process: "dashboard", variable: "AFTERWRITE_DASHBOARD_ADDR", addr: c.DashboardAddr},
	}
}

// checkFree makes sure that every place can be listened on, all at the same time, before anything is started. A port of
// 0 becomes one that is free now. Somebody else may still take one before the process does; then that process says so.
func checkFree(all []place) error {
	listeners := make([]net.Listener, 0, len(all))
	defer func() {
		for _, l := range listeners {
			_ = l.Close()
		}
	}()
	for i, one := range all {
		for _, other := range all[:i] {
			if one.addr == other.addr && !anyPort(other.addr) {
				return fmt.Errorf("%s and %s are both %s: set one of them to another address", other.variable, one.variable, other.addr)
			}
		}
	}
	for i := range all {
		l, err := process.Listen(all[i].addr, all[i].variable)
		if err != nil {
			return err
		}
		listeners = append(listeners, l)
	}
	for i, l := range listeners {
		all[i].addr = l.Addr().String()
	}
	return nil
}

// anyPort reports whether the port is left to the system.
func anyPort(addr string) bool {
	_, port, err := net.SplitHostPort(addr)
	return err == nil && (port == "0" || port == "")
}

// url is the place's address as this machine reaches it.
func (p place) url() string {
	host, port, err := net.SplitHostPort(p.addr)
	if err != nil {
		return "http://" + p.addr
	}
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}
