package up

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/afterwrite/afterwrite/internal/config"
)

// Options are what Run needs. All are required.
type Options struct {
	Config config.Config
	// Executable is the program whose subcommands api, worker, scheduler and dashboard are started.
	Executable string
	// Environ is the environment that the children get, besides what Run decides: os.Environ.
	Environ []string
	// Out takes the lines of all processes.
	Out io.Writer
	// Migrate brings c.DatabaseURL and c.RedisURL up to date, and sets c.Shards to what Redis has.
	Migrate func(ctx context.Context, c *config.Config) error
	// Drain flushes what is dirty in c.RedisURL to c.DatabaseURL, once, and says how many rows Postgres took and how many
	// keys are still dirty.
	Drain func(ctx context.Context, c config.Config) (rows, left int64, err error)
}

// Run starts everything, says where it is, and blocks until ctx is done or one of the processes ends; then it stops
// everything in order, which takes up to about 50 s when nothing goes well. It returns nil when it was told to stop, and
// otherwise what went wrong, in one line that says what to do. Nothing is left running in any case.
func Run(ctx context.Context, options Options) error {
	console := newConsole(options.Out)
	u := &up{Options: options, console: console, say: console.stream("up").sayf}

	err := u.start(ctx)
	if err == nil {
		err = u.wait(ctx)
	}
	if ctx.Err() != nil {
		err = nil // what failed because it was told to stop has not failed
	}
	return errors.Join(err, u.stop(ctx))
}

// up is one run.
type up struct {
	Options

	console   *console
	say       func(format string, args ...any)
	servers   *servers
	places    []place
	processes map[string]*child // by subcommand
	started   bool              // there may be something to stop
	migrated  bool              // there may be something to flush
}

// start returns when every process is ready.
func (u *up) start(ctx context.Context) error {
	var err error
	if u.servers, err = newServers(u.Config); err != nil {
		return err
	}
	u.places = places(u.Config)
	if err := checkFree(u.places); err != nil {
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

	env := childEnv(u.Environ, u.Config, u.places)
	u.processes = make(map[string]*child, len(u.places))
	for _, p := range u.places {
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

// Bounds of the parts of a stop.
const (
	apiPatience     = 10 * time.Second // the api gives the requests under way 10 s
	drainPatience   = 10 * time.Second
	processPatience = 12 * time.Second // a worker gives its tasks 8 s, and then a little
)

// stop ends what was started, in the order in which nothing is lost: no new writes, the last flush, everything else.
func (u *up) stop(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	switch {
	case u.servers == nil:
		return nil
	case !u.started:
		return u.servers.stop(ctx) // gives the folder back
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

// stopProcesses signals the named processes in order, and waits for all of them.
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
	// drainPause is the wait between two drains: a worker may hold some shards for a moment.
	drainPause = 200 * time.Millisecond
	// drainIdle is how many drains in a row may change nothing before the rest is left: keys that wait for a retry, for
	// example, do not become fewer.
	drainIdle = 5
)

// lastFlush brings to Postgres what is dirty, and returns how that went, as the end of a sentence.
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
		return fmt.Sprintf(": the last flush brought %d rows to Postgres and failed then (%v); what is left is in Redis, "+
			"and the next `afterwrite up` goes on with it", flushed, err)
	case left > 0:
		return fmt.Sprintf(": the last flush brought %d rows to Postgres; %d counters are still in Redis only, "+
			"and the next `afterwrite up` goes on with them", flushed, left)
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
