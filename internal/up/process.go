package up

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/local"
)

// readyPatience bounds the start of the processes. It is longer than a process waits for Redis.
const readyPatience = 45 * time.Second

// child is one of the four processes.
type child struct {
	*local.Process

	name string
}

// startProcess starts the subcommand name of the executable. On Linux the kernel sends it SIGTERM if this process dies, so it can
// still finish its requests. Elsewhere it survives a kill -9 of `up`, and the next `up` reports that its port is taken.
func startProcess(executable, name string, env []string, out *stream) (*child, error) {
	started, err := local.Program{
		Name: "the " + name, Path: executable, Args: []string{name}, Env: env, Log: out,
		OrphanSignal: syscall.SIGTERM, OnExit: func() { _ = out.Close() },
	}.Start()
	if err != nil {
		return nil, err
	}
	return &child{Process: started, name: name}, nil
}

// childEnv returns environ with the addresses of this run. It leaves out PORT, which would give all four processes the same port, and
// unknown variables, because `up` has already warned about them and each child would warn again.
func childEnv(environ []string, c config.Config, all []address) []string {
	set := map[string]string{"REDIS_URL": c.RedisURL, "DATABASE_URL": c.DatabaseURL}
	given := make(map[string]string, len(environ))
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		given[name] = value
	}
	dropped := map[string]bool{"PORT": true}
	for _, v := range config.Unknown(given) {
		dropped[v.Name] = true
	}
	for _, p := range all {
		variable := p.variable
		if variable == "PORT" {
			variable = "AFTERWRITE_API_ADDR"
		}
		set[variable] = p.addr
	}

	env := make([]string, 0, len(environ)+len(set))
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if _, ours := set[name]; !ours && !dropped[name] {
			env = append(env, entry)
		}
	}
	for name, value := range set {
		env = append(env, name+"="+value)
	}
	return env
}

// unexpected returns the error for a process that ended without being told to.
func (c *child) unexpected() error {
	return fmt.Errorf("the %s ended with %s: its last lines are above", c.name, c.State())
}

// awaitReady polls the /readyz of every process until all answer 200. If a process ends, it returns an error at once.
func (u *up) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	for _, a := range u.addresses {
		if a.redis {
			continue // the api is ready when its HTTP is
		}
		p := u.processes[a.process]
		err := p.Await(ctx, local.Answers(a.url()+"/readyz"))
		switch {
		case errors.Is(err, local.ErrExited):
			return p.unexpected()
		case err != nil:
			return fmt.Errorf("the %s is not ready after %s: its last lines are above", a.process, readyPatience)
		}
	}
	return nil
}
