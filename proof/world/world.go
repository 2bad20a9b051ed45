package world

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/afterwrite/afterwrite/internal/local"
)

// Version names a built program.
type Version string

// The versions.
const (
	Present  Version = "afterwrite" // of this working tree
	Previous Version = "previous"   // of the commit Options.Previous
)

// Options say what a world is made of. Only Name is required.
type Options struct {
	Name     string // of its folder
	Program  string // built before; empty builds this working tree
	Previous string // the commit of the previous version; empty: there is none
	Redis    local.RedisOptions
	Postgres local.PostgresOptions
	Shards   int      // AFTERWRITE_SHARDS; 0: the default of each version
	Settings []string // NAME=value, for every process
}

// World is the programs and the servers.
type World struct {
	Dir      string
	Redis    *local.Redis
	Postgres *local.Postgres

	options  Options
	programs map[Version]string
	small    *redisServer
	large    *redisServer // nil until a stage asks for it
	stages   []*Stage
	logs     []*os.File // of the servers
}

// redisServer is a Redis whose databases are handed out one by one.
type redisServer struct {
	*local.Redis

	used int // databases
}

// databases of each Redis: enough for every stage and its saved state.
const databases = 32

// New builds the programs into a new folder and starts the servers. Redis keeps an append-only file. Close ends and removes
// everything, also after an error.
func New(ctx context.Context, o Options) (*World, error) {
	if o.Shards != 0 {
		o.Settings = append(slices.Clone(o.Settings), "AFTERWRITE_SHARDS="+strconv.Itoa(o.Shards))
	}
	w := &World{options: o}
	var err error
	if w.Dir, err = local.TempDir("afterwrite-" + o.Name + "-"); err != nil {
		return w, fmt.Errorf("make a folder: %w", err)
	}
	if err := w.build(ctx); err != nil {
		return w, err
	}
	if w.small, err = w.startRedis(ctx, "redis"); err != nil {
		return w, err
	}
	w.Redis = w.small.Redis
	o.Postgres.Dir = filepath.Join(w.Dir, "postgres")
	if o.Postgres.Log, err = w.serverLog("postgres"); err != nil {
		return w, err
	}
	// The statements of the rigs find the tables of this version, and those of the previous one and the peers, which are in public.
	o.Postgres.Args = append([]string{"-c", "search_path=afterwrite,public"}, o.Postgres.Args...)
	w.Postgres, err = local.StartPostgres(ctx, o.Postgres)
	return w, err
}

// build builds the programs. The previous version comes first, because its commit may be missing.
func (w *World) build(ctx context.Context) error {
	w.programs = map[Version]string{Present: w.options.Program, Previous: filepath.Join(w.Dir, string(Previous))}
	if commit := w.options.Previous; commit != "" {
		if err := buildCommit(ctx, commit, w.programs[Previous]); err != nil {
			return err
		}
	}
	if w.options.Program != "" {
		return nil
	}
	w.programs[Present] = filepath.Join(w.Dir, string(Present))
	return Build(ctx, "", w.programs[Present], module)
}

func (w *World) startRedis(ctx context.Context, name string) (*redisServer, error) {
	options := w.options.Redis
	options.Dir, options.AppendOnly, options.Databases = filepath.Join(w.Dir, name), true, databases
	log, err := w.serverLog(name)
	if err != nil {
		return nil, err
	}
	options.Log = log
	server, err := local.StartRedis(ctx, options)
	if err != nil {
		return nil, err
	}
	return &redisServer{Redis: server}, nil
}

func (w *World) serverLog(name string) (*os.File, error) {
	file, err := os.Create(filepath.Join(w.Dir, name+".log"))
	if err != nil {
		return nil, fmt.Errorf("make a log: %w", err)
	}
	w.logs = append(w.logs, file)
	return file, nil
}

// Stop ends everything that runs. The folder stays.
func (w *World) Stop() error {
	ctx := context.Background()
	var problems []error
	for _, s := range w.stages {
		problems = append(problems, s.close())
	}
	if w.Postgres != nil {
		problems = append(problems, w.Postgres.Stop(ctx))
	}
	for _, server := range []*redisServer{w.small, w.large} {
		if server != nil {
			problems = append(problems, server.Stop(ctx))
		}
	}
	for _, log := range w.logs {
		problems = append(problems, log.Close())
	}
	w.stages, w.logs = nil, nil
	return errors.Join(problems...)
}

// Close ends everything that runs, and removes the folder.
func (w *World) Close() error {
	err := w.Stop()
	if w.Postgres != nil {
		return errors.Join(err, local.RemoveDir(w.Dir, w.Postgres.Dir()))
	}
	return errors.Join(err, os.RemoveAll(w.Dir))
}
