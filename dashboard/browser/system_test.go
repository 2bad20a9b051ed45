package browser_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/command"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// programVariable makes the test binary run as the program. So nothing has to be built, and -race covers the processes too.
const programVariable = "BROWSER_TEST_PROGRAM"

// patience bounds each wait: the machine may be busy.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv(programVariable) != "" {
		os.Exit(command.Main(os.Args[1:], os.Stdout, os.Stderr))
	}
	localtest.Main(m)
}

// system is one process of each kind, with private servers.
type system struct {
	postgres *local.Postgres
	redis    *local.Redis
	env      []string
	keys     int // the number of keys that write increments

	api, dashboard *process
}

// start starts the servers and the processes. env adds variables NAME=value to each process.
func start(t *testing.T, env ...string) *system {
	t.Helper()
	return startWith(t, "", env...)
}

// startWith is start with tables of the user's own, which a statement creates before the processes start.
func startWith(t *testing.T, tables string, env ...string) *system {
	t.Helper()
	s := &system{
		keys:     300,
		redis:    localtest.OwnRedis(t, local.RedisOptions{AppendOnly: true}),
		postgres: localtest.OwnPostgres(t, local.PostgresOptions{}),
	}
	s.env = append([]string{
		"PATH=" + os.Getenv("PATH"), programVariable + "=1", "REDIS_URL=" + s.redis.URL(), "DATABASE_URL=" + s.postgres.URL(),
	}, env...)
	out, err := s.command(t, "migrate").CombinedOutput()
	require.NoError(t, err, "%s", out)
	s.exec(t, tables)
	var all [4]*process
	for i, name := range []string{"api", "worker", "scheduler", "dashboard"} {
		port, err := local.FreePort()
		require.NoError(t, err)
		all[i] = &process{name: name, address: fmt.Sprintf("127.0.0.1:%d", port)}
		s.run(t, all[i])
	}
	for _, p := range all {
		p.awaitHealth(t)
	}
	s.api, s.dashboard = all[0], all[3]
	return s
}

// exec executes statements in Postgres.
func (s *system) exec(t *testing.T, statements string) {
	t.Helper()
	db, err := sql.Open("postgres", s.postgres.URL())
	require.NoError(t, err)
	defer db.Close()
	_, err = db.ExecContext(t.Context(), statements)
	require.NoError(t, err)
}

func (s *system) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(program, args...)
	cmd.Env = s.env
	return cmd
}

// process is one process of afterwrite. It may be stopped, and run again on the same address.
type process struct {
	name, address string

	cmd *exec.Cmd
	out bytes.Buffer
}

// run starts a process. It is stopped at the end of the test.
func (s *system) run(t *testing.T, p *process) {
	t.Helper()
	p.cmd = s.command(t, p.name)
	p.cmd.Env = append(p.cmd.Env, "AFTERWRITE_"+strings.ToUpper(p.name)+"_ADDR="+p.address)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("--- %s said:\n%s", p.name, p.out.String())
		}
	})
}

// stop ends the process and waits for its end. It does nothing to one that has ended.
func (p *process) stop() {
	if p.cmd.ProcessState != nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	giveUp := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	defer giveUp.Stop()
	_ = p.cmd.Wait()
}

func (p *process) url(path string) string { return "http://" + p.address + path }

func (p *process) awaitHealth(t *testing.T) {
	t.Helper()
	localtest.Eventually(t, patience, func() (bool, string) {
		response, err := http.Get(p.url("/healthz"))
		if err != nil {
			return false, p.name + ": " + err.Error()
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusOK, p.name + ": " + response.Status
	})
}

// write sends small batches of increments until the test ends. No write may fail, even while Postgres is down.
func (s *system) write(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var writing sync.WaitGroup
	failed := make(chan string, 1)
	writing.Go(func() {
		ticker := time.NewTicker(50 * time.Millisecond)
		defer ticker.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			if answer := s.send(ctx, s.increments(n)); answer != "200 OK" && ctx.Err() == nil {
				select {
				case failed <- answer:
				default:
				}
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		writing.Wait()
		select {
		case answer := <-failed:
			t.Errorf("a write failed: %s", answer)
		default:
		}
	})
}

// increments returns the operations of the n-th batch.
func (s *system) increments(n int) string {
	var list strings.Builder
	for i := range 20 {
		if i > 0 {
			list.WriteByte(',')
		}
		fmt.Fprintf(&list, `{"op":"increment","key":"page:%d"}`, (n*7+i*i)%s.keys)
	}
	return list.String()
}

// set writes one counter.
func (s *system) set(t *testing.T, key string, value int64) {
	t.Helper()
	require.Equal(t, "200 OK", s.send(t.Context(), fmt.Sprintf(`{"op":"set","key":%q,"value":%d}`, key, value)))
}

// send sends a batch. It returns the status of the response, or the error.
func (s *system) send(ctx context.Context, operations string) string {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.api.url("/v1/batch"),
		strings.NewReader(`{"operations":[`+operations+`]}`))
	if err != nil {
		return err.Error()
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	return response.Status
}

// client returns a client of the system's Redis. It is closed at the end of the test.
func (s *system) client(t *testing.T) *redis.Client {
	t.Helper()
	options, err := redis.ParseURL(s.redis.URL())
	require.NoError(t, err)
	client := redis.NewClient(options)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return client
}

// fillStreams opens all live streams that the dashboard allows. They end when the returned function is called or the test ends.
func (s *system) fillStreams(t *testing.T) (leave func()) {
	t.Helper()
	ctx, leave := context.WithCancel(context.Background())
	t.Cleanup(leave)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.dashboard.url("/live?page=shards&every=15"), http.NoBody)
	require.NoError(t, err)
	for range 1000 { // more than the dashboard allows
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		t.Cleanup(func() { _ = response.Body.Close() })
		if response.StatusCode == http.StatusServiceUnavailable {
			return leave
		}
	}
	require.Fail(t, "the dashboard allows more than 1,000 streams")
	return leave
}

// endSessions deletes all sessions, as if they had expired.
func (s *system) endSessions(ctx context.Context, t *testing.T) {
	t.Helper()
	client := s.client(t)
	keys, err := client.Keys(ctx, "aw:session:*").Result()
	require.NoError(t, err)
	require.NotEmpty(t, keys)
	require.NoError(t, client.Del(ctx, keys...).Err())
}
