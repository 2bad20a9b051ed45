package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	_ "github.com/lib/pq" // the driver of db
	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/local"
)

const (
	module = "github.com/afterwrite/afterwrite"

	shards        = 64
	sweepInterval = time.Second
	// cleanTTL is short, so that keys leave Redis and come back from Postgres while things die.
	cleanTTL = 5 * time.Second

	// copies is how many there are of each process.
	copies = 2

	readyPatience = 40 * time.Second
	lookEvery     = 50 * time.Millisecond
)

// server is a private Redis or Postgres.
type server interface {
	Kill()
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
	Dir() string
}

// world is everything that runs.
type world struct {
	dir         string
	redis       *local.Redis
	postgres    *local.Postgres
	redisClient redis.UniversalClient
	cache       *cache.Cache
	db          *sql.DB
	processes   []*process

	stop  context.CancelFunc // of the processes
	ended sync.WaitGroup
	logs  []io.Closer
}

// newWorld builds the program and starts everything. Close ends it, also after an error.
func newWorld(ctx context.Context) (*world, error) {
	w := &world{stop: func() {}}
	dir, err := os.MkdirTemp("", "afterwrite-chaos-")
	if err != nil {
		return w, err
	}
	w.dir = dir
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // the user postgres has to get to its data
		return w, err
	}
	program := filepath.Join(dir, "afterwrite")
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", program, module) //nolint:gosec // no input
	if err := output(build); err != nil {
		return w, fmt.Errorf("build: %w", err)
	}
	if err := w.startServers(ctx); err != nil {
		return w, err
	}
	env := append(os.Environ(),
		"REDIS_URL="+w.redis.URL(), "DATABASE_URL="+w.postgres.URL(), "AFTERWRITE_LOG_LEVEL=debug",
		"AFTERWRITE_SHARDS="+strconv.Itoa(shards),
		"AFTERWRITE_SWEEP_INTERVAL="+sweepInterval.String(), "AFTERWRITE_CLEAN_TTL="+cleanTTL.String())
	migrate := exec.CommandContext(ctx, program, "migrate") //nolint:gosec // what we have built
	migrate.Env = env
	if err := output(migrate); err != nil {
		return w, fmt.Errorf("migrate: %w", err)
	}
	return w, w.startProcesses(ctx, program, env)
}

// output runs a command; the error has what it said.
func output(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

func (w *world) startServers(ctx context.Context) error {
	redisLog, err := w.log(targetRedis)
	if err != nil {
		return err
	}
	postgresLog, err := w.log(targetPostgres)
	if err != nil {
		return err
	}
	w.redis, err = local.StartRedis(ctx, local.RedisOptions{
		Dir: filepath.Join(w.dir, targetRedis), AppendOnly: true, AppendFsync: "always", Log: redisLog,
	})
	if err != nil {
		return err
	}
	w.postgres, err = local.StartPostgres(ctx, local.PostgresOptions{
		Dir: filepath.Join(w.dir, targetPostgres), Fsync: true, Log: postgresLog,
	})
	if err != nil {
		return err
	}
	if w.db, err = sql.Open("postgres", w.postgres.URL()); err != nil {
		return err
	}
	if w.redisClient, err = cache.Connect(w.redis.URL(), 4); err != nil {
		return err
	}
	w.cache = cache.New(w.redisClient, cache.Options{Shards: shards, CleanTTL: cleanTTL})
	return nil
}

func (w *world) log(name string) (*os.File, error) {
	file, err := os.Create(filepath.Join(w.dir, name+".log"))
	if err == nil {
		w.logs = append(w.logs, file)
	}
	return file, err
}

// startProcesses starts two of each, and waits until they are ready.
func (w *world) startProcesses(ctx context.Context, program string, env []string) error {
	run, stop := context.WithCancel(context.WithoutCancel(ctx)) // they are stopped in Close
	w.stop = stop
	for _, sub := range []string{"scheduler", "worker", "api"} {
		for i := range copies {
			port, err := local.FreePort()
			if err != nil {
				return err
			}
			addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
			own := slices.Concat(env, []string{"AFTERWRITE_" + strings.ToUpper(sub) + "_ADDR=" + addr})
			p, err := newProcess(w.dir, program, fmt.Sprintf("%s-%d", sub, i), sub, addr, own)
			if err != nil {
				return err
			}
			w.processes = append(w.processes, p)
			w.ended.Go(func() { p.supervise(run) })
		}
	}
	return w.awaitReady(ctx)
}

// awaitReady waits until every process says that what it needs answers.
func (w *world) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	for _, p := range w.processes {
		for !ready(ctx, p.addr) {
			if !pause(ctx, lookEvery) {
				return fmt.Errorf("%s is not ready after %v: see %s", p.name, readyPatience, p.log.Name())
			}
		}
	}
	return nil
}

func ready(ctx context.Context, addr string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// backends are the idle server processes of Postgres that afterwrite's processes are connected to, about half of them.
func (w *world) backends(ctx context.Context) ([]int, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	found, err := w.db.QueryContext(ctx, `SELECT pid FROM pg_stat_activity
		WHERE application_name = 'afterwrite' AND state = 'idle' AND random() < 0.5`)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	var pids []int
	for found.Next() {
		var pid int
		if err := found.Scan(&pid); err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, found.Err()
}

// process is nil when the target is a server.
func (w *world) process(target string) *process {
	for _, p := range w.processes {
		if p.name == target {
			return p
		}
	}
	return nil
}

// odd reports that a process ended by itself. That is no violation, but its log is worth reading.
func (w *world) odd() bool {
	return slices.ContainsFunc(w.processes, func(p *process) bool { return len(p.endings()) > 0 })
}

// panics looks through the logs for what a process says when it dies of a bug. It is started again then, so nothing else may
// show it.
func (w *world) panics(f *findings) {
	for _, p := range w.processes {
		text, err := os.ReadFile(p.log.Name())
		if err != nil {
			f.add(p.name, "its log cannot be read: "+err.Error(), nil)
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
				f.add(p.name, strings.TrimSpace(line), nil)
			}
		}
	}
}

//nolint:ireturn // one of two
func (w *world) server(target string) server {
	if target == targetRedis {
		return w.redis
	}
	return w.postgres
}

// apis are the base addresses of the apis.
func (w *world) apis() []string {
	var bases []string
	for _, p := range w.processes {
		if p.sub == "api" {
			bases = append(bases, "http://"+p.addr)
		}
	}
	return bases
}

// close ends everything that runs, and returns when it has ended.
func (w *world) close() {
	w.stop()
	w.ended.Wait()
	if w.db != nil {
		_ = w.db.Close()
	}
	if w.redisClient != nil {
		_ = w.redisClient.Close()
	}
	ctx := context.Background()
	if w.postgres != nil {
		_ = w.postgres.Stop(ctx)
	}
	if w.redis != nil {
		_ = w.redis.Stop(ctx)
	}
	for _, log := range w.logs {
		_ = log.Close()
	}
}

// remove removes the folder, and the data of Postgres where that is elsewhere (see local.Postgres.Dir).
func (w *world) remove() error {
	err := os.RemoveAll(w.dir)
	if w.postgres == nil {
		return err
	}
	data := w.postgres.Dir()
	if rel, relErr := filepath.Rel(w.dir, data); relErr == nil && !filepath.IsLocal(rel) {
		err = errors.Join(err, os.RemoveAll(filepath.Dir(data)))
	}
	return err
}
