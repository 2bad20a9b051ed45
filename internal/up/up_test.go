package up

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/local"
)

const patience = 30 * time.Second

// output collects what `up` prints. It is safe for concurrent use.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // closed and replaced by each write
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// waitFor returns when the text has been printed.
func (o *output) waitFor(t *testing.T, text string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		o.mu.Lock()
		found, changed := strings.Contains(o.text.String(), text), o.changed
		o.mu.Unlock()
		if found {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			require.Failf(t, "not printed", "%q in\n%s", text, o)
		}
	}
}

// testBundle is a run of `up` whose processes are this test binary. It starts no servers.
type testBundle struct {
	options Options
	out     *output
	stop    context.CancelFunc
	result  chan error
}

func setup(t *testing.T, behaviour string) *testBundle {
	t.Helper()
	out := newOutput()
	executable, err := os.Executable()
	require.NoError(t, err)
	return &testBundle{
		out:    out,
		result: make(chan error, 1),
		options: Options{
			Config: freePorts(t), Executable: executable, Out: out,
			Environ: append(os.Environ(), childVariable+"="+behaviour),
			Migrate: func(context.Context, *config.Config) error { return nil },
			Drain:   func(context.Context, config.Config) (int64, int64, error) { return 0, 0, nil },
		},
	}
}

func (b *testBundle) start(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	b.stop = stop
	t.Cleanup(stop)
	go func() { b.result <- Run(ctx, b.options) }()
}

// end returns Run's result and checks that none of its processes is left.
func (b *testBundle) end(t *testing.T) error {
	t.Helper()
	var err error
	select {
	case err = <-b.result:
	case <-time.After(patience):
		require.Failf(t, "up does not end", "%s", b.out)
	}
	for _, match := range regexp.MustCompile(`pid (\d+)`).FindAllStringSubmatch(b.out.String(), -1) {
		pid, convErr := strconv.Atoi(match[1])
		require.NoError(t, convErr)
		require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH, "process %d is left", pid)
	}
	return err
}

func TestUpStopsTheAPIThenFlushesThenStopsTheOthers(t *testing.T) {
	t.Parallel()
	b := setup(t, "")
	b.options.Drain = func(context.Context, config.Config) (int64, int64, error) {
		_, err := b.out.Write([]byte("FLUSH\n"))
		return 12, 0, err
	}
	b.start(t)
	b.out.waitFor(t, "Try it")

	b.stop()
	require.NoError(t, b.end(t))

	text := b.out.String()
	flush := strings.Index(text, "FLUSH")
	require.Less(t, strings.Index(text, "api       | told to stop"), flush)
	for _, name := range []string{"worker   ", "scheduler", "dashboard"} {
		require.Greater(t, strings.Index(text, name+" | told to stop"), flush, text)
	}
	require.True(t, strings.HasSuffix(text, "up        | stopped: Postgres has every counter (rows in the last flush: 12)\n"), text)
}

func TestUpPrintsAddressesAndExampleCommands(t *testing.T) {
	t.Parallel()
	b := setup(t, "")
	b.start(t)
	b.out.waitFor(t, "GET '{aw:")
	b.stop()
	require.NoError(t, b.end(t))

	text := b.out.String()
	require.Regexp(t, `  api        http://127\.0\.0\.1:\d+\n`, text)
	require.Regexp(t, `curl -X POST http://127\.0\.0\.1:\d+/v1/counters/page%3Ahome/increment\n`, text)
	require.Contains(t, text, `psql "$DATABASE_URL" -c 'TABLE afterwrite.counters LIMIT 10'`)
	require.Contains(t, text, `redis-cli -u "$REDIS_URL" GET '{aw:12}:c:page:home'`)
}

func TestAProcessThatDiesStopsEverything(t *testing.T) {
	t.Parallel()
	b := setup(t, "")
	b.start(t)
	b.out.waitFor(t, "Try it")
	address := regexp.MustCompile(`  worker     (\S+)`).FindStringSubmatch(b.out.String())[1]

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	_, err := client.Get(address + "/die") //nolint:bodyclose // there is no answer
	require.Error(t, err)

	require.ErrorContains(t, b.end(t), "the worker ended with exit status 4")
	require.Contains(t, b.out.String(), "the worker ended with exit status 4: its last lines are above; stopping everything")
	require.Contains(t, b.out.String(), "dashboard | told to stop")
}

func TestAProcessThatCannotStartStopsEverything(t *testing.T) {
	t.Parallel()
	b := setup(t, "scheduler:crash")
	b.start(t)

	require.ErrorContains(t, b.end(t), "the scheduler ended with exit status 3")
	require.Contains(t, b.out.String(), "scheduler | cannot go on")
	require.NotContains(t, b.out.String(), "Try it")
}

func TestUpCanBeStoppedWhileItStarts(t *testing.T) {
	t.Parallel()
	b := setup(t, "dashboard:unready")
	b.start(t)
	b.out.waitFor(t, "dashboard | pid")

	b.stop()

	require.NoError(t, b.end(t))
	require.NotContains(t, b.out.String(), "Try it")
}

func TestAnErrorOfTheMigrationIsReturned(t *testing.T) {
	t.Parallel()
	b := setup(t, "")
	b.options.Migrate = func(context.Context, *config.Config) error { return errors.New("migrate: no such database") }
	b.start(t)

	require.EqualError(t, b.end(t), "migrate: no such database")
	require.NotContains(t, b.out.String(), "pid")
}

func TestNothingIsStartedIfTheFolderIsInUse(t *testing.T) {
	t.Parallel()
	b := setup(t, "")
	b.options.Config.RedisURL = ""
	b.options.Config.DataDir = t.TempDir()
	unlock, err := local.Lock(b.options.Config.DataDir)
	require.NoError(t, err)
	defer func() { require.NoError(t, unlock()) }()
	b.start(t)

	require.ErrorIs(t, b.end(t), local.ErrLocked)
	require.Empty(t, b.out.String())
}

func TestErrorForAnUnusableFolderNamesTheVariable(t *testing.T) {
	t.Parallel()
	b := setup(t, "")
	b.options.Config.RedisURL = ""
	b.options.Config.DataDir = "/dev/null/afterwrite"
	b.start(t)

	err := b.end(t)
	require.ErrorIs(t, err, local.ErrNotWritable)
	require.ErrorContains(t, err, "AFTERWRITE_DATA_DIR")
}

func TestPathsInExampleCommandsAreQuoted(t *testing.T) {
	t.Parallel()
	require.Equal(t, "/srv/.afterwrite/redis.sock", shellQuote("/srv/.afterwrite/redis.sock"))
	require.Equal(t, `'/my files/it'\''s'`, shellQuote("/my files/it's"))
}

func TestAProcessThatDoesNotStopIsKilled(t *testing.T) {
	t.Parallel()
	out := newOutput()
	executable, err := os.Executable()
	require.NoError(t, err)
	env := append(os.Environ(), childVariable+"=api:deaf")
	p, err := startProcess(executable, "api", env, newConsole(out).stream("api"))
	require.NoError(t, err)
	out.waitFor(t, "deaf")

	require.ErrorIs(t, p.Stop(t.Context(), 50*time.Millisecond), local.ErrKilled)

	require.ErrorContains(t, p.unexpected(), "signal: killed")
}

func TestAMissingExecutableIsAnError(t *testing.T) {
	t.Parallel()
	_, err := startProcess("/nowhere/afterwrite", "api", nil, newConsole(newOutput()).stream("api"))
	require.ErrorContains(t, err, "start the api")
}
