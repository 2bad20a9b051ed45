// Package command parses the command line, and wires every subcommand together from the other packages. Package process has the parts that
// all processes share.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/process"
)

// Exit statuses.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

const description = `Write-behind counters: a write over HTTP is acknowledged as soon as Redis has it, and Postgres gets it
afterwards, coalesced and in batches.

To try it out, run "afterwrite up": it needs only redis-server and postgres on this machine. To run it for real, run
"afterwrite migrate" once, and then the processes api, worker, scheduler and dashboard, with any number of each. All are
configured by environment variables; the help of each command lists those that it reads.`

// cli is the command line. The methods Help of the commands are in help.go.
type cli struct {
	Up upCommand `cmd:"" group:"try" help:"Run everything on this machine, Redis and Postgres included."`

	API       apiCommand       `cmd:"" group:"run" help:"Serve the HTTP API."`
	Worker    workerCommand    `cmd:"" group:"run" help:"Write dirty counters from Redis to Postgres."`
	Scheduler schedulerCommand `cmd:"" group:"run" help:"Send the periodic tasks: sweeps and purges."`
	Dashboard dashboardCommand `cmd:"" group:"run" help:"Serve the web pages for operators."`

	Migrate     migrateCommand     `cmd:"" group:"operate" help:"Bring Postgres's schema and Redis's layout up to date."`
	Doctor      doctorCommand      `cmd:"" group:"operate" help:"Check whether Redis and Postgres are fit for afterwrite."`
	Status      statusCommand      `cmd:"" group:"operate" help:"Show whether Postgres keeps up, and what to do if it does not."`
	Flush       flushCommand       `cmd:"" group:"operate" help:"Flush now, and report what is left; for deploy scripts."`
	Dead        deadCommand        `cmd:"" group:"operate" help:"List, redrive and discard dead letters: counters that Postgres refused."`
	Verify      verifyCommand      `cmd:"" group:"operate" help:"Compare counters in Redis with Postgres; --repair repairs them."`
	History     historyCommand     `cmd:"" group:"operate" help:"Show the operations on a counter that has a history."`
	Mappings    mappingsCommand    `cmd:"" group:"operate" help:"Check mappings of counters to your own tables; import, backfill, verify."`
	APIKey      apiKeyCommand      `cmd:"" group:"operate" help:"Make a key of the API."`
	Healthcheck healthcheckCommand `cmd:"" group:"operate" help:"Check the health of a process, for containers without a shell."`
	Version     versionCommand     `cmd:"" group:"operate" help:"Print the version, its commit and date."`
}

var groups = []kong.Group{
	{Key: "try", Title: "Try it out:"},
	{Key: "run", Title: "Processes:"},
	{Key: "operate", Title: "Operations:"},
}

// world has the inputs and outputs of a command, which tests replace.
type world struct {
	ctx     context.Context //nolint:containedctx // a command's Run has no other parameter
	stdout  io.Writer
	stderr  io.Writer
	environ []string
}

func (w *world) environment() process.Environment {
	return process.Environment{Variables: environMap(w.environ), Stderr: w.stderr, Version: programVersion()}
}

// connect makes the clients of a short command. It does not contact the servers.
func (w *world) connect(name string, pools process.Pools) (*process.Servers, error) {
	c, log, err := w.environment().Settings(name)
	if err != nil {
		return nil, err
	}
	return process.Connect(c, log, pools)
}

// open is connect for a command that uses the counters in Redis: see process.Servers.Settle.
func (w *world) open(name string, pools process.Pools) (*process.Servers, error) {
	s, err := w.connect(name, pools)
	if err != nil {
		return nil, err
	}
	if err := s.Settle(w.ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// oneByOne bounds the connections of a command without concurrency.
var oneByOne = process.Pools{Redis: 2, Postgres: 2}

// environMap converts the format of os.Environ into a map. The first value of a name counts, as in getenv.
func environMap(environ []string) map[string]string {
	variables := make(map[string]string, len(environ))
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if _, known := variables[name]; !known {
			variables[name] = value
		}
	}
	return variables
}

// Main runs the program with args, which exclude its name, and returns the exit status: 0, 1 after an error, which it writes to stderr in
// one line, or 2 if the arguments are invalid. The first SIGINT or SIGTERM stops the command gracefully; the second ends it at once.
func Main(args []string, stdout, stderr io.Writer) int {
	ctx, stop := untilSignal()
	defer stop()
	return run(world{ctx: ctx, stdout: stdout, stderr: stderr, environ: os.Environ()}, args)
}

// untilSignal returns a context that ends with the first SIGINT or SIGTERM. The next one has its default effect already when the context
// ends: it may come as soon as the command says that it stops.
func untilSignal() (ctx context.Context, stop func()) {
	signals, release := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	ctx, cancel := context.WithCancelCause(context.Background())
	context.AfterFunc(signals, func() {
		release()
		cancel(context.Cause(signals))
	})
	return ctx, release
}

// exited is the panic value of kong's exit function, which kong calls after printing the help.
type exited int

func run(w world, args []string) (status int) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case exited:
			status = int(p)
		default:
			panic(p)
		}
	}()
	parser, err := newParser(w)
	if err != nil {
		return fail(w, err, exitFailure)
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	if err != nil {
		return fail(w, fmt.Errorf("%w: see `afterwrite --help`", err), exitUsage)
	}
	err = command.Run(&w)
	special, isSpecial := errors.AsType[*exitError](err)
	switch {
	case err == nil:
	case isSpecial:
		return fail(w, err, special.status)
	case errors.Is(err, context.Canceled) && w.ctx.Err() != nil:
		// The process was stopped while it started.
	default:
		return fail(w, err, exitFailure)
	}
	return exitOK
}

// exitError is an error with an exit status of its own.
type exitError struct {
	error

	status int
}

// Unwrap returns the error itself.
func (e *exitError) Unwrap() error { return e.error }

func newParser(w world) (*kong.Kong, error) {
	return kong.New(&cli{},
		kong.Name("afterwrite"),
		kong.Description(description),
		kong.ExplicitGroups(groups),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Writers(w.stdout, w.stderr),
		kong.Exit(func(status int) { panic(exited(status)) }),
	)
}

// fail writes err in one line. Only the log of a server that has exited keeps its lines.
func fail(w world, err error, status int) int {
	text := process.NewRedactor(config.Secrets(environMap(w.environ))...).Redact(err.Error())
	if cache.Denial(err) == "NOPERM" && !strings.Contains(text, "`afterwrite doctor`") {
		text += ": `afterwrite doctor` prints the permissions that its user of Redis needs"
	}
	if !errors.Is(err, local.ErrExited) {
		text = strings.ReplaceAll(text, "\n", "; ")
	}
	_, _ = fmt.Fprintf(w.stderr, "afterwrite: %s\n", text) // there is no other place for an error
	return status
}
