package up

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

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

// unexpected returns the error for a process that ended without being told to.
func (c *child) unexpected() error {
	return fmt.Errorf("the %s ended with %s: its last lines are above", c.name, c.State())
}

// awaitReady polls the /readyz of every process until all answer 200. If a process ends, it returns an error at once.
func (u *up) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	for _, a := range u.addresses {
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
