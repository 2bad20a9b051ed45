// Package world runs the servers and processes for the benchmark, the chaos test and the end-to-end tests: a private Redis and
// Postgres, the built program, and its processes.
//
//	w, err := world.New(ctx, world.Options{Name: "bench"})   // builds the program and starts the servers
//	defer w.Close()
//	stage, err := w.Stage(ctx, world.StageOptions{Name: "small"})
//	err = stage.Reset(ctx, 100_000)           // 100,000 rows of 0, and an empty Redis database
//	api, err := stage.Start(ctx, "api")
//	...
//	err = stage.Drained(ctx, time.Minute)     // waits until no key is dirty
//	sum, rows, err := stage.Sum(ctx)
//	err = stage.Save(ctx)                     // for Restore
//
// The benchmark compares this version with an earlier one. So a Stage uses only what both have: the commands, the HTTP API, the
// metrics and the table counters. Only Backlog and Clean read this version's keys in Redis.
package world

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/local"
)

// Version names a built program.
type Version string

// The versions.
const (
	Current  Version = "afterwrite" // built from this working tree
	Previous Version = "previous"   // built from the commit Options.Previous
)

// Options configure a World. Only Name is required.
type Options struct {
	Name     string // a part of the folder's name
	Program  string // path of the built program; "" builds this working tree
	Previous string // commit of the previous version; "" for none
	Redis    local.RedisOptions
	Postgres local.PostgresOptions
	// Topology replaces the single Redis by several nodes. Then Redis is nil, all stages share one database, and Save does not work.
	// Of the options of Redis only AppendFsync is used.
	Topology TopologyOptions
	Shards   int      // AFTERWRITE_SHARDS; 0 for each version's default
	Settings []string // NAME=value for every process

	// Restricted gives the processes a user of Redis with the permissions that `afterwrite doctor` prints, and no others. Refused lists
	// the commands that Redis refused to it. Only without a topology.
	Restricted bool
}

// World holds the built programs and the servers.
type World struct {
	Dir      string
	Redis    *local.Redis // nil with a topology
	Topology Topology     // nil without one
	Postgres *local.Postgres

	options    Options
	programs   map[Version]string
	small      *redisServer
	large      *redisServer // nil before the first large stage
	replicated *redisServer // nil before the first replicated stage
	stages     []*Stage
	logs       []*os.File // of the servers
}

// redisServer is a Redis server that gives each stage databases of its own.
type redisServer struct {
	*local.Redis

	used    int          // number of databases in use
	replica *local.Redis // nil: none
}

// databases is the number of databases of each Redis. Each stage needs one, and one for its saved state.
const databases = 32

// New builds the programs into a new folder and starts the servers. Redis writes an append-only file. Call Close afterwards, even
// after an error.
func New(ctx context.Context, o Options) (*World, error) {
	if o.Shards != 0 {
		o.Settings = append(slices.Clone(o.Settings), "AFTERWRITE_SHARDS="+strconv.Itoa(o.Shards))
	}
	w := &World{options: o}
	var err error
	if w.Dir, err = local.TempDir("afterwrite-" + o.Name + "-"); err != nil {
		return w, fmt.Errorf("create a folder: %w", err)
	}
	if err := w.build(ctx); err != nil {
		return w, err
	}
	if err := w.startServers(ctx); err != nil {
		return w, err
	}
	o.Postgres.Dir = filepath.Join(w.Dir, "postgres")
	if o.Postgres.Log, err = w.serverLog("postgres"); err != nil {
		return w, err
	}
	// This version's tables are in the schema afterwrite, the previous version's in public. Unqualified SQL finds both.
	o.Postgres.Args = append([]string{"-c", "search_path=afterwrite,public"}, o.Postgres.Args...)
	w.Postgres, err = local.StartPostgres(ctx, o.Postgres)
	return w, err
}

// startServers starts the Redis servers.
func (w *World) startServers(ctx context.Context) error {
	var err error
	switch o := w.options.Topology; o.Kind {
	case KindSentinel:
		_, err = w.startSentinel(ctx, o)
	case KindCluster:
		_, err = w.startCluster(ctx, o)
	case KindAddress:
		_, err = w.startAddress(ctx, o)
	default:
		if w.small, err = w.startRedis(ctx, "redis", w.options.Redis); err == nil {
			w.Redis = w.small.Redis
		}
	}
	if err != nil {
		return fmt.Errorf("start redis: %w", err)
	}
	return nil
}

// build builds the programs. The previous version is first, because its commit may be missing.
func (w *World) build(ctx context.Context) error {
	w.programs = map[Version]string{Current: w.options.Program, Previous: filepath.Join(w.Dir, string(Previous))}
	if commit := w.options.Previous; commit != "" {
		if err := buildCommit(ctx, commit, w.programs[Previous]); err != nil {
			return err
		}
	}
	if w.options.Program != "" {
		return nil
	}
	w.programs[Current] = filepath.Join(w.Dir, string(Current))
	return Build(ctx, "", w.programs[Current], module)
}

func (w *World) startRedis(ctx context.Context, name string, options local.RedisOptions) (*redisServer, error) {
	options.Dir, options.AppendOnly, options.Databases = filepath.Join(w.Dir, name), true, databases
	log, err := w.serverLog(name)
	if err != nil {
		return nil, err
	}
	options.Log = log
	if w.options.Restricted {
		options.Args = slices.Concat(options.Args, restrictedUser())
	}
	server, err := local.StartRedis(ctx, options)
	if err != nil {
		return nil, err
	}
	return &redisServer{Redis: server}, nil
}

// startReplicated starts a Redis and its replica, and returns when the replica follows.
func (w *World) startReplicated(ctx context.Context) (*redisServer, error) {
	options := w.options.Redis
	options.Socket = false
	primary, err := w.startRedis(ctx, "redis-primary", options)
	if err != nil {
		return nil, err
	}
	address, err := url.Parse(primary.URL())
	if err != nil {
		return primary, fmt.Errorf("parse the URL of redis: %w", err)
	}
	password, _ := address.User.Password()
	options.Args = append(slices.Clone(options.Args), "--replicaof", address.Hostname()+" "+address.Port(), "--masterauth", password)
	replica, err := w.startRedis(ctx, "redis-replica", options)
	if err != nil {
		return primary, err
	}
	primary.replica = replica.Redis
	client, err := cache.Connect(primary.URL(), 1)
	if err != nil {
		return primary, err
	}
	defer func() { _ = client.Close() }()
	return primary, Await(ctx, time.Minute, "the replica of redis", func(ctx context.Context) (bool, error) {
		text, err := client.Info(ctx, "replication").Result()
		return strings.Contains(text, "state=online"), err
	})
}

func (w *World) serverLog(name string) (*os.File, error) {
	file, err := os.Create(filepath.Join(w.Dir, name+".log"))
	if err != nil {
		return nil, fmt.Errorf("create a log: %w", err)
	}
	w.logs = append(w.logs, file)
	return file, nil
}

// Stop stops all processes and servers. It keeps the folder.
func (w *World) Stop() error {
	ctx := context.Background()
	var problems []error
	for _, s := range w.stages {
		problems = append(problems, s.close())
	}
	if w.Postgres != nil {
		problems = append(problems, w.Postgres.Stop(ctx))
	}
	if w.Topology != nil {
		problems = append(problems, w.Topology.Close())
	}
	for _, server := range []*redisServer{w.small, w.large, w.replicated} {
		if server != nil {
			problems = append(problems, server.Stop(ctx))
		}
		if server != nil && server.replica != nil {
			problems = append(problems, server.replica.Stop(ctx))
		}
	}
	for _, log := range w.logs {
		problems = append(problems, log.Close())
	}
	w.stages, w.logs = nil, nil
	return errors.Join(problems...)
}

// Close stops all processes and servers, and removes the folder.
func (w *World) Close() error {
	err := w.Stop()
	if w.Postgres != nil {
		return errors.Join(err, local.RemoveDir(w.Dir, w.Postgres.Dir()))
	}
	return errors.Join(err, os.RemoveAll(w.Dir))
}
