package up

import (
	"cmp"
	"fmt"
	"net"

	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/process"
)

// address is the address of one process.
type address struct {
	process  string // the subcommand
	variable string // the variable that sets the address
	addr     string
	tls      bool
	redis    bool // the Redis protocol of the api, not HTTP
}

// redisAddr is where `up` listens for the Redis protocol, unless the settings say otherwise: next to Redis's own port.
const redisAddr = "127.0.0.1:6380"

// addresses returns the addresses of the four processes, and last that of the Redis protocol. PORT applies to HTTP of the api only.
func addresses(c config.Config) []address {
	api := address{process: "api", variable: "AFTERWRITE_API_ADDR", addr: c.Addr(c.APIAddr), tls: c.TLSCert != ""}
	if c.Port != 0 {
		api.variable = "PORT"
	}
	return []address{
		api,
		{process: "worker", variable: "AFTERWRITE_WORKER_ADDR", addr: c.WorkerAddr},
		{process: "scheduler", variable: "AFTERWRITE_SCHEDULER_ADDR", addr: c.SchedulerAddr},
		{process: "dashboard", variable: "AFTERWRITE_DASHBOARD_ADDR", addr: c.DashboardAddr},
		{process: "api", variable: "AFTERWRITE_RESP_ADDR", addr: cmp.Or(c.RESPAddr, redisAddr), tls: c.TLSCert != "", redis: true},
	}
}

// checkFree returns an error unless all addresses can be listened on at the same time. It replaces port 0 by a free port. Another
// program may still take a port before the process listens; then that process reports it.
func checkFree(all []address) error {
	listeners := make([]net.Listener, 0, len(all))
	defer func() {
		for _, l := range listeners {
			_ = l.Close()
		}
	}()
	for i, one := range all {
		for _, other := range all[:i] {
			if one.addr == other.addr && !anyPort(other.addr) {
				return fmt.Errorf("%s and %s must differ; both are %s", other.variable, one.variable, other.addr)
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

// anyPort reports whether the system chooses the port.
func anyPort(addr string) bool {
	_, port, err := net.SplitHostPort(addr)
	return err == nil && (port == "0" || port == "")
}

// url returns the URL of the address on this machine.
func (p address) url() string {
	scheme := "http"
	if p.redis {
		scheme = "redis"
	}
	if p.tls {
		scheme += "s"
	}
	scheme += "://"
	host, port, err := net.SplitHostPort(p.addr)
	if err != nil {
		return scheme + p.addr
	}
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + net.JoinHostPort(host, port)
}

// redisCLI returns the redis-cli command for the address, without arguments of its own.
func (p address) redisCLI() string {
	_, port, _ := net.SplitHostPort(p.addr)
	if p.tls {
		return "redis-cli --tls -p " + port
	}
	return "redis-cli -p " + port
}
