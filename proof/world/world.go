package world

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/proof/bench/load"
)

// Version names an afterwrite that has been built.
type Version string

// The versions.
const (
	Present  Version = "afterwrite" // of this working tree
	Previous Version = "previous"   // of the commit that New is given
)

// World is the servers and the programs.
type World struct {
	Dir      string
	Postgres *local.Postgres

	small  *redisServer
	large  *redisServer // nil until a stage asks for it
	stages []*Stage
	logs   *os.File
}

// redisServer is a Redis whose databases are given out one by one.
type redisServer struct {
	*local.Redis

	used int // databases
}

// databases is how many each Redis has: more than there are stages, and one more for what each may save.
const databases = 32

// New builds afterwrite and its peers into a new folder and starts the servers. previous is the commit of the previous version;
// without one, that is not built. Close ends and removes everything, also after an error.
func New(ctx context.Context, previous string) (*World, error) {
	w := &World{}
	dir, err := os.MkdirTemp("", "afterwrite-bench-")
	if err != nil {
		return w, fmt.Errorf("make a folder: %w", err)
	}
	w.Dir = dir
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // the user postgres has to get to its data
		return w, fmt.Errorf("open the folder: %w", err)
	}
	if w.logs, err = os.Create(filepath.Join(dir, "processes.log")); err != nil {
		return w, fmt.Errorf("make a log: %w", err)
	}
	if err := w.buildAll(ctx, previous); err != nil {
		return w, err
	}
	if w.small, err = w.startRedis(ctx, "redis"); err != nil {
		return w, err
	}
	w.Postgres, err = local.StartPostgres(ctx, local.PostgresOptions{Dir: filepath.Join(dir, "postgres"), Fsync: true})
	return w, err
}

// buildAll builds the programs, the one that may be impossible first.
func (w *World) buildAll(ctx context.Context, previous string) error {
	if previous != "" {
		if err := buildCommit(ctx, previous, w.program(Previous)); err != nil {
			return err
		}
	}
	if err := build(ctx, "", w.program(Present)); err != nil {
		return err
	}
	return load.Build(ctx, w.Dir)
}

func (w *World) startRedis(ctx context.Context, name string) (*redisServer, error) {
	server, err := local.StartRedis(ctx, local.RedisOptions{
		Dir: filepath.Join(w.Dir, name), Socket: true, AppendOnly: true, Databases: databases,
	})
	if err != nil {
		return nil, err
	}
	return &redisServer{Redis: server}, nil
}

// program is the path of a version's program.
func (w *World) program(v Version) string { return filepath.Join(w.Dir, string(v)) }

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
	for _, server := range []*redisServer{w.small, w.large} {
		if server != nil {
			problems = append(problems, server.Stop(ctx))
		}
	}
	if w.logs != nil {
		problems = append(problems, w.logs.Close())
	}
	if w.Dir != "" {
		problems = append(problems, os.RemoveAll(w.Dir))
	}
	return errors.Join(problems...)
}
