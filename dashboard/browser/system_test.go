package browser_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/command"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// programVariable makes the test binary the program itself: nothing has to be built, and -race watches the processes too.
const programVariable = "BROWSER_TEST_PROGRAM"

// patience bounds each wait: the machine may be busy.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv(programVariable) != "" {
		os.Exit(command.Main(os.Args[1:], os.Stdout, os.Stderr))
	}
	localtest.Main(m)
}

// system is all of afterwrite's processes, with servers of their own.
type system struct {
	postgres  *local.Postgres
	env       []string
	api       string // its URL
	dashboard string
}

func start(t *testing.T) *system {
	t.Helper()
	redis := localtest.OwnRedis(t, local.RedisOptions{AppendOnly: true})
	s := &system{postgres: localtest.OwnPostgres(t, local.PostgresOptions{})}
	s.env = []string{
		"PATH=" + os.Getenv("PATH"), programVariable + "=1", "REDIS_URL=" + redis.URL(), "DATABASE_URL=" + s.postgres.URL(),
	}
	out, err := s.command(t, "migrate").CombinedOutput()
	require.NoError(t, err, "%s", out)
	var urls [4]string
	for i, name := range []string{"api", "worker", "scheduler", "dashboard"} {
		urls[i] = s.run(t, name)
	}
	s.api, s.dashboard = urls[0], urls[3]
	for _, url := range urls {
		localtest.Eventually(t, patience, func() (bool, string) { return ready(url), url + " is not ready" })
	}
	return s
}

func (s *system) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(program, args...)
	cmd.Env = s.env
	return cmd
}

// run starts a process on a free port, ends it with the test, and returns its URL.
func (s *system) run(t *testing.T, name string) string {
	t.Helper()
	port, err := local.FreePort()
	require.NoError(t, err)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	cmd := s.command(t, name)
	cmd.Env = append(cmd.Env, "AFTERWRITE_"+strings.ToUpper(name)+"_ADDR="+address)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		giveUp := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		defer giveUp.Stop()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("--- %s said:\n%s", name, out.String())
		}
	})
	return "http://" + address
}

func ready(url string) bool {
	response, err := http.Get(url + "/healthz")
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// write sends small batches of increments until the test ends. No write may fail, whatever becomes of Postgres.
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
			if answer := s.batch(ctx, n); answer != "200 OK" && ctx.Err() == nil {
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

func (s *system) batch(ctx context.Context, n int) string {
	var body strings.Builder
	for i := range 20 {
		if i > 0 {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, `{"op":"increment","key":"page:%d"}`, (n*7+i*i)%300)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.api+"/v1/batch",
		strings.NewReader(`{"operations":[`+body.String()+`]}`))
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
