package e2e_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	_ "github.com/lib/pq"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestMain(m *testing.M) { localtest.Main(m) }

// sweepInterval of every system here.
const sweepInterval = 5 * time.Second

// binary builds afterwrite once for all tests.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "afterwrite-e2e-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "afterwrite")
	out, err := exec.Command("go", "build", "-o", path, "../..").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

// system is the processes of one test with their servers.
type system struct {
	redisServer *local.Redis
	postgres    *local.Postgres
	redis       *redis.Client
	db          *sql.DB
	inspector   *asynq.Inspector
	cache       *cache.Cache
	env         []string

	api       *process
	scheduler *process
	workers   []*process
}

// start runs a whole system: api, scheduler and two workers.
func start(t *testing.T, env ...string) *system {
	t.Helper()
	s := &system{
		redisServer: localtest.OwnRedis(t, local.RedisOptions{AppendOnly: true, AppendFsync: "everysec"}),
		postgres:    localtest.OwnPostgres(t, local.PostgresOptions{}),
	}
	options, err := redis.ParseURL(s.redisServer.URL())
	require.NoError(t, err)
	s.redis = redis.NewClient(options)
	t.Cleanup(func() { _ = s.redis.Close() })
	s.db, err = sql.Open("postgres", s.postgres.URL())
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.db.Close() })
	s.inspector = asynq.NewInspectorFromRedisClient(s.redis)
	s.cache = cache.New(s.redis, cache.Options{Shards: cache.DefaultShards, CleanTTL: time.Hour})
	s.env = append(append(os.Environ(), env...),
		"REDIS_URL="+s.redisServer.URL(), "DATABASE_URL="+s.postgres.URL(), "AFTERWRITE_SWEEP_INTERVAL="+sweepInterval.String())

	migrate := s.command(t, "migrate")
	out, err := migrate.CombinedOutput()
	require.NoError(t, err, "%s", out)
	s.scheduler = s.run(t, "scheduler", "AFTERWRITE_SCHEDULER_ADDR")
	s.workers = []*process{s.run(t, "worker", "AFTERWRITE_WORKER_ADDR"), s.run(t, "worker", "AFTERWRITE_WORKER_ADDR")}
	s.api = s.run(t, "api", "AFTERWRITE_API_ADDR")
	return s
}

func (s *system) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	path, err := binary()
	require.NoError(t, err)
	cmd := exec.Command(path, args...)
	cmd.Env = s.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// process is one of afterwrite's processes.
type process struct {
	name string
	addr string
	cmd  *exec.Cmd
	out  *bytes.Buffer
	done chan struct{}
}

// run starts a process on a free port and waits until it is ready. It is ended with the test.
func (s *system) run(t *testing.T, name, addrVariable string) *process {
	t.Helper()
	p := &process{name: name, addr: freeAddr(t)}
	s.launch(t, p, addrVariable)
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			t.Logf("--- %s said:\n%s", p.name, tail(p.out.String(), 4000))
		}
	})
	return p
}

// launch starts p, for the first time or again.
func (s *system) launch(t *testing.T, p *process, addrVariable string) {
	t.Helper()
	p.cmd, p.out, p.done = s.command(t, p.name), &bytes.Buffer{}, make(chan struct{})
	p.cmd.Env = append(p.cmd.Env, addrVariable+"="+p.addr)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	require.NoError(t, p.cmd.Start())
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		select {
		case <-p.done:
			require.FailNow(t, p.name+" ended", "%s", p.out)
		default:
		}
		response, err := http.Get("http://" + p.addr + "/readyz")
		if err != nil {
			return false, err.Error()
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK, response.Status
	})
}

// stop ends p as an operator would, and waits.
func (p *process) stop(t *testing.T) {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(15 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
		t.Errorf("%s did not end within 15 s of a SIGTERM", p.name)
	}
}

// kill ends p as a crash would.
func (p *process) kill(t *testing.T) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Kill())
	<-p.done
}

// metric sums a counter or gauge over the given processes.
func metric(t *testing.T, name string, processes ...*process) float64 {
	t.Helper()
	sum := 0.0
	for _, p := range processes {
		response, err := http.Get("http://" + p.addr + "/metrics")
		require.NoError(t, err)
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		family, found := families[name]
		require.True(t, found, "%s has no %s", p.name, name)
		for _, m := range family.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// eventuallyClean waits until Postgres has everything, and reports how long that took.
func (s *system) eventuallyClean(t *testing.T, within time.Duration) time.Duration {
	t.Helper()
	started := time.Now()
	localtest.Eventually(t, within, func() (bool, string) {
		backlog, err := s.cache.Backlog(context.Background())
		if err != nil {
			return false, err.Error()
		}
		return backlog.Dirty == 0, fmt.Sprintf("%+v", backlog)
	})
	return time.Since(started)
}

// archived counts the tasks that Asynq has given up.
func (s *system) archived(t *testing.T) int {
	t.Helper()
	queues, err := s.inspector.Queues()
	require.NoError(t, err)
	sum := 0
	for _, q := range queues {
		info, err := s.inspector.GetQueueInfo(q)
		require.NoError(t, err)
		sum += info.Archived
	}
	return sum
}

// processed counts the tasks that Asynq has run today, failed ones included.
func (s *system) processed(t *testing.T, queue string) int {
	t.Helper()
	info, err := s.inspector.GetQueueInfo(queue)
	require.NoError(t, err)
	return info.Processed
}

// rows is what Postgres has, live counters only.
func (s *system) rows(t *testing.T) map[string]int64 {
	t.Helper()
	found, err := s.db.Query(`SELECT key, value FROM counters WHERE deleted_at IS NULL`)
	require.NoError(t, err)
	defer func() { require.NoError(t, found.Close()) }()
	rows := make(map[string]int64)
	for found.Next() {
		var key string
		var value int64
		require.NoError(t, found.Scan(&key, &value))
		rows[key] = value
	}
	require.NoError(t, found.Err())
	return rows
}

func freeAddr(t *testing.T) string {
	t.Helper()
	port, err := local.FreePort()
	require.NoError(t, err)
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

func tail(s string, most int) string {
	if len(s) <= most {
		return s
	}
	_, rest, _ := strings.Cut(s[len(s)-most:], "\n")
	return rest
}
