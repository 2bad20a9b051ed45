package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/proof/world"
)

const (
	shards = 16
	warmup = 4 * time.Second
	// recoveryPatience bounds the load after the fault.
	recoveryPatience = 90 * time.Second
	cleanPatience    = 60 * time.Second
	// tail is the load after everything works again.
	tail = 2 * time.Second
)

// run is one run of a scenario.
type run struct {
	settings

	scenario   scenario
	durability string
	number     int
	program    string

	world   *world.World
	stage   *world.Stage
	apis    []*world.Process
	workers []*world.Process
	dash    *world.Process
	ledger  *ledger
	load    *load
}

// execute executes the run. An error means that it was not completed. The caller calls close.
func (r *run) execute(ctx context.Context) (result, error) {
	if err := r.start(ctx); err != nil {
		return result{}, err
	}
	groups, err := r.groups(ctx)
	if err != nil {
		return result{}, err
	}
	began := time.Now()
	r.load.start(ctx, groups, r.clients)
	defer r.load.end()
	random := rand.New(rand.NewPCG(r.seed, uint64(r.number)))                                         //nolint:gosec // repeatable
	if err := world.Sleep(ctx, warmup+time.Duration(random.Int64N(int64(time.Second)))); err != nil { // at any moment between two flushes
		return result{}, err
	}
	master, err := r.world.Topology.MasterOf(ctx, r.probeKey(0))
	if err != nil {
		return result{}, err
	}

	r.ledger.begin()
	recovery := &recovery{stage: r.stage, topology: r.world.Topology, ledger: r.ledger, overview: r.dash.URL + "/"}
	observing, stop := context.WithCancel(ctx)
	var observer sync.WaitGroup
	observer.Go(func() { recovery.watch(observing) })
	defer observer.Wait()
	defer stop()
	if err := r.scenario.fault(ctx, r, master); err != nil {
		return result{}, fmt.Errorf("the fault: %w", err)
	}
	took := time.Since(r.ledger.fault)
	if err := world.AwaitHealthy(ctx, r.world.Topology, healPatience); err != nil {
		return result{}, fmt.Errorf("heal: %w", err)
	}
	healed := time.Since(r.ledger.fault)
	times, recovered := r.await(ctx, recovery)
	_ = world.Sleep(ctx, tail)
	ended := time.Now()
	stop()
	observer.Wait()
	r.load.end()

	res := result{
		run: r, times: times, recovered: recovered, took: took, healed: healed, sentences: recovery.sentences, slowest: recovery.slowest,
		before: r.ledger.longestGap(began.Add(warmup/2), r.ledger.fault),
		gap:    r.ledger.longestGap(r.ledger.fault.Add(-time.Second), ended),
	}
	res.acked, res.unknown = r.ledger.sums()
	return res, r.verify(ctx, &res)
}

// await waits until afterwrite works again, for a time.
func (r *run) await(ctx context.Context, recovery *recovery) (times, bool) {
	end := time.Now().Add(recoveryPatience)
	for {
		t, ok := recovery.times()
		if ok || time.Now().After(end) || world.Sleep(ctx, statusEvery) != nil {
			return t, ok
		}
	}
}

// start starts the servers and the processes.
func (r *run) start(ctx context.Context) error {
	topology := world.TopologyOptions{Kind: r.scenario.kind, Partitions: r.scenario.partition}
	if r.scenario.kind != world.KindCluster {
		topology.Replicas = r.replicas
		if r.durability == durabilityReplica {
			topology.MinReplicas = r.minReplicas
		}
	}
	var err error
	r.world, err = world.New(ctx, world.Options{
		Name: "failover", Program: r.program, Shards: shards, Topology: topology,
		Settings: []string{
			"AFTERWRITE_DURABILITY=" + r.durability, fmt.Sprintf("AFTERWRITE_WAIT_REPLICAS=%d", r.waitReplicas),
			"AFTERWRITE_SWEEP_INTERVAL=1s",
		},
	})
	if err != nil {
		return err
	}
	if r.stage, err = r.world.Stage(ctx, world.StageOptions{Name: "failover"}); err != nil {
		return err
	}
	if err := r.startProcesses(ctx); err != nil {
		return err
	}
	r.ledger = &ledger{reasons: make(map[string]int64), late: make(map[int]int64)}
	for i := range r.keys {
		key := world.Key(i)
		r.ledger.accounts = append(r.ledger.accounts, &account{key: key, shard: int(counter.Key(key).Shard(shards))})
	}
	r.load = &load{
		ledger: r.ledger, apis: r.apis, limit: rate.NewLimiter(rate.Limit(r.rate), 1),
		http: http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4 * r.clients}, Timeout: requestTimeout},
	}
	return nil
}

func (r *run) startProcesses(ctx context.Context) error {
	start := func(sub string, settings ...string) *world.Process {
		p, err := r.stage.Launch(sub, settings...)
		if err != nil {
			return nil
		}
		return p
	}
	start("scheduler")
	r.workers = []*world.Process{start("worker"), start("worker")}
	r.apis = []*world.Process{start("api")}
	r.dash = start("dashboard")
	if r.scenario.partition {
		minority, err := r.minority(ctx)
		if err != nil {
			return err
		}
		r.apis = append(r.apis, start("api", "REDIS_URL="+minority))
	}
	for _, p := range slices.Concat(r.workers, r.apis, []*world.Process{r.dash}) {
		if p == nil {
			return errors.New("a process did not start")
		}
		if err := p.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// minority returns the REDIS_URL of an api that reaches only the node which will be cut off.
func (r *run) minority(ctx context.Context) (string, error) {
	master, err := r.world.Topology.MasterOf(ctx, r.probeKey(0))
	if err != nil {
		return "", err
	}
	if r.scenario.kind == world.KindCluster {
		return strings.Replace(master.URL(), "redis://", "redis-cluster://", 1), nil
	}
	return master.URL(), nil
}

func (r *run) probeKey(shard int) string {
	return fmt.Sprintf("probe:{aw:%s}", counter.Shard(shard))
}

// groups divides the accounts by the masters of their shards.
func (r *run) groups(ctx context.Context) ([][]*account, error) {
	index := make(map[*world.Node]int)
	var groups [][]*account
	for _, a := range r.ledger.accounts {
		master, err := r.world.Topology.MasterOf(ctx, r.probeKey(a.shard))
		if err != nil {
			return nil, err
		}
		i, known := index[master]
		if !known {
			i = len(groups)
			index[master], groups = i, append(groups, nil)
		}
		groups[i] = append(groups[i], a)
	}
	return groups, nil
}

// verify waits until no key is dirty, and compares the rows with the ledger.
func (r *run) verify(ctx context.Context, res *result) error {
	drain, backlog, err := r.stage.Clean(ctx, cleanPatience)
	if err != nil {
		return err
	}
	res.drain = drain
	if backlog.Dead > 0 {
		return fmt.Errorf("%d keys are dead", backlog.Dead)
	}
	values, err := r.values(ctx)
	if err != nil {
		return err
	}
	for _, a := range r.ledger.accounts {
		lost, double := a.compare(values[a.key])
		res.lost += lost
		res.double += double
		if lost+double > 0 {
			res.keys = append(res.keys, fmt.Sprintf("%s (shard %02x): row %d, acknowledged %d, unknown %d", a.key, a.shard, values[a.key],
				int64(len(a.acks))+a.others, a.unknown))
		}
	}
	for _, p := range r.workers {
		metrics, err := p.Metrics(ctx)
		if err != nil {
			return err
		}
		res.reconciled += int64(metrics.Sum("afterwrite_reconciled_keys_total"))
	}
	return nil
}

func (r *run) values(ctx context.Context) (map[string]int64, error) {
	found, err := r.stage.DB.QueryContext(ctx, "SELECT key, value FROM counters")
	if err != nil {
		return nil, fmt.Errorf("read the rows: %w", err)
	}
	defer found.Close()
	values := make(map[string]int64)
	for found.Next() {
		var key string
		var value int64
		if err := found.Scan(&key, &value); err != nil {
			return nil, fmt.Errorf("read the rows: %w", err)
		}
		values[key] = value
	}
	return values, found.Err()
}

// close stops everything. It keeps the logs and the data if asked to, or with -keep.
func (r *run) close(keep bool, out io.Writer) error {
	if r.world == nil {
		return nil
	}
	if keep || r.keep {
		fmt.Fprintln(out, "logs and data:", r.world.Dir)
		return r.world.Stop()
	}
	return r.world.Close()
}
