package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/proof/world"
)

const (
	shards        = 64
	sweepInterval = time.Second
	// cleanTTL is short, so that keys are evicted and hydrated during the faults.
	cleanTTL = 5 * time.Second

	// copies is the number of processes of each kind.
	copies = 2

	readyPatience = 40 * time.Second
	checkEvery    = 50 * time.Millisecond
)

// server is a private Redis or Postgres.
type server interface {
	Kill()
	Start(ctx context.Context) error
}

// rig holds the servers and the supervised processes.
type rig struct {
	*world.Stage

	world     *world.World
	processes []*process

	stop  context.CancelFunc // ends the supervision
	ended sync.WaitGroup
}

// newRig builds the program, and starts the servers and processes, with the mapped columns of names. Call close afterwards, even after
// an error.
func newRig(ctx context.Context, names []name, o settings) (*rig, error) {
	r := &rig{stop: func() {}}
	// Both servers make writes durable before they acknowledge them; with a topology, the replicas have them.
	fsync, durability := "always", "memory"
	if o.topology != "" {
		fsync, durability = "everysec", "replica"
	}
	settings := []string{
		"AFTERWRITE_LOG_LEVEL=debug", "AFTERWRITE_DURABILITY=" + durability,
		"AFTERWRITE_SWEEP_INTERVAL=" + sweepInterval.String(), "AFTERWRITE_CLEAN_TTL=" + cleanTTL.String(),
	}
	if o.history {
		settings = append(settings, "AFTERWRITE_HISTORY=*")
	}
	var err error
	r.world, err = world.New(ctx, world.Options{
		Name: "chaos", Shards: shards, Topology: world.TopologyOptions{Kind: o.topology, MinReplicas: 1, Partitions: true},
		Redis: local.RedisOptions{AppendFsync: fsync}, Postgres: local.PostgresOptions{Fsync: true},
		Restricted: o.topology == "", Settings: settings,
	})
	if err != nil {
		return r, err
	}
	if r.Stage, err = r.world.Stage(ctx, world.StageOptions{Name: "chaos"}); err != nil {
		return r, err
	}
	mappings, err := r.createTables(ctx, names)
	if err != nil {
		return r, err
	}
	return r, r.startProcesses(ctx, "AFTERWRITE_MAPPINGS="+mappings)
}

// startProcesses starts two processes of each kind, and waits until they are ready.
func (r *rig) startProcesses(ctx context.Context, settings ...string) error {
	run, stop := context.WithCancel(context.WithoutCancel(ctx)) // close cancels it
	r.stop = stop
	for _, sub := range []string{"scheduler", "worker", "api"} {
		for range copies {
			p := new(process)
			own := settings
			if sub == "api" {
				port, err := local.FreePort()
				if err != nil {
					return err
				}
				p.redis = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
				own = append(slices.Clone(settings), "AFTERWRITE_RESP_ADDR="+p.redis)
			}
			var err error
			if p.Process, err = r.Launch(sub, own...); err != nil {
				return err
			}
			r.processes = append(r.processes, p)
			r.ended.Go(func() { p.supervise(run) })
		}
	}
	return r.awaitReady(ctx)
}

// eachMaster calls do for each Redis that holds data.
func (r *rig) eachMaster(ctx context.Context, do func(ctx context.Context, client *redis.Client) error) error {
	switch client := r.Redis.(type) {
	case *redis.ClusterClient:
		return client.ForEachMaster(ctx, do)
	case *redis.Client:
		return do(ctx, client)
	default:
		return fmt.Errorf("unexpected client %T", client)
	}
}

// awaitReady waits until every process is ready.
func (r *rig) awaitReady(ctx context.Context) error {
	for _, p := range r.processes {
		answers := local.Answers(p.URL + "/readyz")
		err := world.Await(ctx, readyPatience, p.Name+" to be ready", func(ctx context.Context) (bool, error) {
			return answers(ctx) == nil, nil
		})
		if err != nil {
			return fmt.Errorf("%w: see %s", err, p.Log)
		}
	}
	return nil
}

// backends returns about half of the idle Postgres backends that serve afterwrite.
func (r *rig) backends(ctx context.Context) ([]int, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	found, err := r.DB.QueryContext(ctx, `SELECT pid FROM pg_stat_activity
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

// process returns the process with that name; nil for a server.
func (r *rig) process(target string) *process {
	for _, p := range r.processes {
		if p.Name == target {
			return p
		}
	}
	return nil
}

//nolint:ireturn // one of two types
func (r *rig) server(target string) server {
	if target == targetRedis {
		return r.world.Redis
	}
	return r.world.Postgres
}

// suspicious reports whether a process ended by itself. That is no violation, but a reason to keep its log.
func (r *rig) suspicious() bool {
	return slices.ContainsFunc(r.processes, func(p *process) bool { return len(p.endings()) > 0 })
}

// panics searches the logs for panics and fatal errors, which a restart may have hidden.
func (r *rig) panics(f *findings) {
	for _, p := range r.processes {
		text, err := os.ReadFile(p.Log)
		if err != nil {
			f.add(p.Name, "read its log: "+err.Error(), nil)
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
				f.add(p.Name, strings.TrimSpace(line), nil)
			}
		}
	}
}

// apis returns the URLs of the apis.
func (r *rig) apis() []string {
	var bases []string
	for _, p := range r.processes {
		if strings.HasPrefix(p.Name, "api-") {
			bases = append(bases, p.URL)
		}
	}
	return bases
}

// redisAddrs returns the addresses of the apis for the Redis protocol.
func (r *rig) redisAddrs() []string {
	var addrs []string
	for _, p := range r.processes {
		if p.redis != "" {
			addrs = append(addrs, p.redis)
		}
	}
	return addrs
}

// close ends the supervision, the processes and the servers, and blocks until they have ended.
func (r *rig) close() {
	r.stop()
	r.ended.Wait()
	_ = r.world.Stop()
}
