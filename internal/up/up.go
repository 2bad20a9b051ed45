package up

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/afterwrite/afterwrite/internal/config"
)

// Options configure Run. All are required.
type Options struct {
	Config config.Config
	// Executable is the program that has the subcommands api, worker, scheduler and dashboard.
	Executable string
	// Environ is the environment of the children, such as os.Environ. Run replaces the addresses.
	Environ []string
	// Out gets the output of all processes.
	Out io.Writer
	// Migrate migrates c.DatabaseURL and c.RedisURL, and sets c.Shards to the number of shards that Redis has.
	Migrate func(ctx context.Context, c *config.Config) error
	// Drain flushes the dirty counters of c.RedisURL to c.DatabaseURL once. It returns how many rows it wrote, and how many keys
	// are still dirty.
	Drain func(ctx context.Context, c config.Config) (rows, left int64, err error)
}

// Run starts everything, prints the addresses, and blocks until ctx is done or one of the processes ends. Then it stops everything in
// order, which takes at most about 50 s. It returns nil if ctx is done, and otherwise an error of one line that tells the user
// what to do. Nothing is left running in either case.
func Run(ctx context.Context, options Options) error {
	console := newConsole(options.Out)
	u := &up{Options: options, console: console, say: console.stream("up").sayf}

	err := u.start(ctx)
	if err == nil {
		err = u.wait(ctx)
	}
	if ctx.Err() != nil {
		err = nil // the stop caused the error
	}
	return errors.Join(err, u.stop(ctx))
}

// up is one run.
type up struct {
	Options

	console   *console
	say       func(format string, args ...any)
	servers   *servers
	addresses []address
	processes map[string]*child // by subcommand
	started   bool              // servers may be running
	migrated  bool              // counters may be dirty
}

// start returns when every process is ready.
func (u *up) start(ctx context.Context) error {
	var err error
	if u.servers, err = newServers(u.Config); err != nil {
		return err
	}
	u.addresses = addresses(u.Config)
	if err := checkFree(u.addresses); err != nil {
		return err
	}
	u.started = true
	if err := u.servers.start(ctx, &u.Config, u.say); err != nil {
		return err
	}
	if err := u.Migrate(ctx, &u.Config); err != nil {
		return err
	}
	u.migrated = true

	env := childEnv(u.Environ, u.Config, u.addresses)
	u.processes = make(map[string]*child, len(u.addresses))
	for _, p := range u.addresses {
		if p.redis {
			continue // it is the api's
		}
		started, err := startProcess(u.Executable, p.process, env, u.console.stream(p.process))
		if err != nil {
			return err
		}
		u.processes[p.process] = started
	}
	if err := u.awaitReady(ctx); err != nil {
		return err
	}
	u.console.write(u.banner())
	return nil
}

// wait returns when ctx is done, or with the error of the first process that ends.
func (u *up) wait(ctx context.Context) error {
	ended := make(chan error, len(u.processes)+2)
	watch := func(done <-chan struct{}, why func() error) {
		if done == nil {
			return
		}
		go func() {
			<-done
			ended <- why()
		}()
	}
	for _, p := range u.processes {
		watch(p.Done(), p.unexpected)
	}
	watch(u.servers.redisDone(), func() error { return u.servers.redis.Err() })
	watch(u.servers.postgresDone(), func() error { return u.servers.postgres.Err() })

	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		if ctx.Err() == nil {
			u.say("%v; stopping everything", err)
		}
		return err
	}
}

// Time limits for the steps of a stop.
const (
	apiPatience     = 10 * time.Second // the api's own limit for requests in progress
	drainPatience   = 10 * time.Second
	processPatience = 12 * time.Second // a worker's own limit for its tasks is 8 s
)

// stop stops the api, flushes a last time, and stops the other processes and the servers.
func (u *up) stop(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	switch {
	case u.servers == nil:
		return nil
	case !u.started:
		return u.servers.stop(ctx) // unlocks the folder
	}
	if u.processes != nil {
		u.say("stopping: the api, a last flush, the other processes")
	}
	u.stopProcesses(ctx, apiPatience, "api")
	outcome := u.lastFlush(ctx)
	u.stopProcesses(ctx, processPatience, "scheduler", "worker", "dashboard")
	err := u.servers.stop(ctx)
	u.say("stopped%s", outcome)
	return err
}

// stopProcesses stops the named processes at the same time, and waits for all of them.
func (u *up) stopProcesses(ctx context.Context, patience time.Duration, names ...string) {
	ended := make(chan struct{}, len(names))
	for _, name := range names {
		p := u.processes[name]
		if p == nil {
			ended <- struct{}{}
			continue
		}
		go func() {
			if err := p.Stop(ctx, patience); err != nil {
				u.say("%v", err)
			}
			ended <- struct{}{}
		}()
	}
	for range names {
		<-ended
	}
}

const (
	// drainPause is the pause between two drains. A worker may hold the leases of some shards for a moment.
	drainPause = 200 * time.Millisecond
	// drainIdle is the number of consecutive drains without progress after which the last flush gives up. Keys that wait for a
	// retry, for example, stay dirty.
	drainIdle = 5
)

// lastFlush flushes the dirty counters, and returns the outcome as the end of a sentence.
func (u *up) lastFlush(ctx context.Context) string {
	if !u.migrated {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, drainPatience)
	defer cancel()

	var flushed, left int64
	var err error
	for before, idle := int64(-1), 0; idle < drainIdle && ctx.Err() == nil; {
		var rows int64
		rows, left, err = u.Drain(ctx, u.Config)
		flushed += rows
		if left == 0 {
			break
		}
		if idle++; rows > 0 || left != before {
			idle = 0
		}
		before = left
		pause(ctx, drainPause)
	}
	return flushOutcome(flushed, left, err)
}

func flushOutcome(flushed, left int64, err error) string {
	switch {
	case err != nil:
		return fmt.Sprintf(": the last flush wrote %d rows to Postgres and then failed (%v); the other counters are still dirty in "+
			"Redis, and the next `afterwrite up` flushes them", flushed, err)
	case left > 0:
		return fmt.Sprintf(": the last flush wrote %d rows to Postgres; %d counters are still dirty in Redis, "+
			"and the next `afterwrite up` flushes them", flushed, left)
	default:
		return fmt.Sprintf(": Postgres has every counter (rows in the last flush: %d)", flushed)
	}
}

// pause waits for d, or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
