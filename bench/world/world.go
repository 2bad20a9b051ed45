package world

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/afterwrite/afterwrite/bench/load"
	"github.com/afterwrite/afterwrite/internal/local"
)

const module = "github.com/afterwrite/afterwrite"

// World is the servers and the programs.
type World struct {
	Dir      string
	Redis    *local.Redis
	Postgres *local.Postgres

	program string
	stages  []*Stage
	logs    *os.File
}

// New builds afterwrite and its peers into a new folder and starts the servers. Close ends and removes everything, also after
// an error.
func New(ctx context.Context) (*World, error) {
	w := &World{}
	dir, err := os.MkdirTemp("", "afterwrite-bench-")
	if err != nil {
		return w, fmt.Errorf("make a folder: %w", err)
	}
	w.Dir, w.program = dir, filepath.Join(dir, "afterwrite")
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // the user postgres has to get to its data
		return w, fmt.Errorf("open the folder: %w", err)
	}
	if w.logs, err = os.Create(filepath.Join(dir, "processes.log")); err != nil {
		return w, fmt.Errorf("make a log: %w", err)
	}
	// As `make build` builds it.
	args := []string{"build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", w.program, module}
	build := exec.CommandContext(ctx, "go", args...) //nolint:gosec // no input
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return w, fmt.Errorf("build: %w\n%s", err, out)
	}
	if err := load.Build(ctx, dir); err != nil {
		return w, err
	}
	w.Redis, err = local.StartRedis(ctx, local.RedisOptions{Dir: filepath.Join(dir, "redis"), Socket: true, AppendOnly: true})
	if err != nil {
		return w, err
	}
	w.Postgres, err = local.StartPostgres(ctx, local.PostgresOptions{Dir: filepath.Join(dir, "postgres"), Fsync: true})
	return w, err
}

// Peer is the path of a peer's program: noop, direct, through or naive.
func (w *World) Peer(name string) string { return filepath.Join(w.Dir, name) }

// Log gets what the processes print.
func (w *World) Log() *os.File { return w.logs }

// Close ends everything that runs, and removes the folder.
func (w *World) Close() error {
	ctx := context.Background()
	var problems []error
	for _, s := range w.stages {
		problems = append(problems, s.close())
	}
	if w.Postgres != nil {
		problems = append(problems, w.Postgres.Stop(ctx))
		// Where its user could not reach the folder, the data is elsewhere.
		data := w.Postgres.Dir()
		if rel, err := filepath.Rel(w.Dir, data); err == nil && !filepath.IsLocal(rel) {
			problems = append(problems, os.RemoveAll(filepath.Dir(data)))
		}
	}
	if w.Redis != nil {
		problems = append(problems, w.Redis.Stop(ctx))
	}
	if w.logs != nil {
		problems = append(problems, w.logs.Close())
	}
	if w.Dir != "" {
		problems = append(problems, os.RemoveAll(w.Dir))
	}
	return errors.Join(problems...)
}
