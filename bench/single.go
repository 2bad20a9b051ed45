package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/afterwrite/afterwrite/bench/load"
	"github.com/afterwrite/afterwrite/bench/proc"
	"github.com/afterwrite/afterwrite/bench/report"
	"github.com/afterwrite/afterwrite/bench/world"
	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// space is how many keys there are, and all exist: rows in Postgres, and in Redis for who keeps them there.
	space = 100_000
	// connections is how many clients wait for an answer at any time.
	connections = 200
	warmUp      = time.Second
	// drainPatience bounds the wait for a drain. A naive worker has the writes of some seconds to do one by one.
	drainPatience = 5 * time.Minute
)

// both loads a server for the time of warming up, and then for the time that counts. begin is called between the two.
func (b *bench) both(ctx context.Context, spec load.HTTPSpec, begin func() error) (warm, result load.HTTPResult, err error) {
	spec.Duration, spec.Seed = warmUp, b.seed()
	if warm, err = load.WRK(ctx, spec); err != nil {
		return warm, result, err
	}
	if err := begin(); err != nil {
		return warm, result, err
	}
	spec.Duration, spec.Seed = b.duration(), spec.Seed+1
	if result, err = load.WRK(ctx, spec); err != nil {
		return warm, result, err
	}
	if failed := warm.Failed + result.Failed; failed > 0 {
		return warm, result, fmt.Errorf("%d requests failed", failed)
	}
	return warm, result, nil
}

// seed is what the warming up of this round draws its keys from; the load that counts has the next one.
func (b *bench) seed() uint64 { return 2*uint64(b.round) + 1 } //nolint:gosec // never negative

// nothing is for runs that have nothing to do between warming up and measuring.
func nothing() error { return nil }

// system is afterwrite as it is run: one api, a number of workers, and the scheduler.
type system struct {
	api       *world.Process
	workers   []*world.Process
	scheduler *world.Process
}

// start starts everything, with one worker, and returns when all of it is ready.
func start(ctx context.Context, s *world.Stage) (*system, error) {
	sys := &system{workers: make([]*world.Process, 1)}
	var err error
	if sys.api, err = s.Start(ctx, "api"); err != nil {
		return nil, err
	}
	return sys, sys.startFlushing(ctx, s)
}

// running is afterwrite, started on a stage of that name with so many rows of 0, which Redis has too.
func (b *bench) running(ctx context.Context, name string, rows int) (*world.Stage, *system, error) {
	stage, err := b.stage(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(stage.Reset(ctx, rows), stage.Warm(ctx, rows)); err != nil {
		return nil, nil, err
	}
	sys, err := start(ctx, stage)
	return stage, sys, err
}

// startFlushing starts the workers and the scheduler.
func (sys *system) startFlushing(ctx context.Context, s *world.Stage, settings ...string) error {
	var err error
	if sys.scheduler, err = s.Start(ctx, "scheduler", settings...); err != nil {
		return err
	}
	for i := range sys.workers {
		if sys.workers[i], err = s.Start(ctx, "worker", settings...); err != nil {
			return err
		}
	}
	return nil
}

// counted is what the api says of itself since its start: operations that it has accepted, and those whose outcome it has not
// learnt, because their clients hung up before.
type counted struct{ acknowledged, unknown int64 }

func (sys *system) counted(ctx context.Context) (counted, error) {
	metrics, err := sys.api.Metrics(ctx)
	return counted{
		acknowledged: int64(metrics.Sum("afterwrite_writes_total")),
		unknown:      int64(metrics.SumOf("afterwrite_rejected_total", "reason", string(counter.CodeOutcomeUnknown))),
	}, err
}

// of completes what was counted elsewhere.
func (c counted) of(count report.Count) report.Count {
	count.Acknowledged, count.Unknown = c.acknowledged, c.unknown
	return count
}

// singleAfterwrite measures single increments over HTTP, while one worker flushes.
func singleAfterwrite(keys load.Keys) func(context.Context, *bench) error {
	return func(ctx context.Context, b *bench) error {
		stage, sys, err := b.running(ctx, "single", space)
		if err != nil {
			return err
		}
		var used cpuTimes
		spec := load.HTTPSpec{URL: sys.api.URL, Keys: keys, Space: space, Connections: connections}
		warm, result, err := b.both(ctx, spec, func() (err error) {
			used, err = b.readCPU(sys)
			return err
		})
		if err != nil {
			return err
		}
		ended := time.Now()
		if err := stage.Drained(ctx, drainPatience); err != nil {
			return err
		}
		drain := time.Since(ended)
		after, err := b.readCPU(sys)
		if err != nil {
			return err
		}
		own, err := sys.counted(ctx)
		if err != nil {
			return err
		}
		name := string(keys) + "/afterwrite"
		if err := b.settle(ctx, stage, name, own, warm, result); err != nil {
			return err
		}
		b.noteSingle(name, result, drain)
		b.noteCPU(string(keys), after.since(used), result.Requests)
		return nil
	}
}

// settle compares what Postgres has, in a stage that began with zeros, with what the server and the load say.
func (b *bench) settle(ctx context.Context, stage *world.Stage, name string, own counted, loads ...load.HTTPResult) error {
	sum, rows, err := stage.Sum(ctx)
	if err != nil {
		return err
	}
	if rows != space {
		return fmt.Errorf("%w: there are %d rows, and not the %d that were there before", errSum, rows, space)
	}
	count := own.of(report.Count{Stored: sum, Cut: int64(len(loads)) * connections})
	for _, l := range loads {
		count.Load += l.Requests
	}
	return b.check(name, count)
}

// noteSingle keeps what was measured. Sustained counts the time until the last write was in Postgres too.
func (b *bench) noteSingle(name string, result load.HTTPResult, drain time.Duration) {
	b.note(name+"/rate", result.PerSecond)
	b.note(name+"/sustained", float64(result.Requests)/(result.Seconds+drain.Seconds()))
	b.note(name+"/drain", drain.Seconds())
	b.note(name+"/p50", result.P50.Seconds()*1000)
	b.note(name+"/p99", result.P99.Seconds()*1000)
}

// singlePeer measures the same of one of bench/peer.
func singlePeer(peer string, keys load.Keys) func(context.Context, *bench) error {
	return func(ctx context.Context, b *bench) (err error) {
		stage, err := b.stage(ctx, "single")
		if err != nil {
			return err
		}
		if err := stage.Reset(ctx, space); err != nil {
			return err
		}
		if err := stage.WarmPlain(ctx, "c:", space); err != nil {
			return err
		}
		env := load.Env{RedisURL: stage.RedisURL, DatabaseURL: stage.DatabaseURL, Log: b.world.Log()}
		process, err := load.StartPeer(ctx, b.world.Peer(peer), env)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, process.Stop()) }()
		var flusher *load.Process
		if peer == "naive" {
			env.Args = []string{"worker"}
			if flusher, err = load.StartPeer(ctx, b.world.Peer(peer), env); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, flusher.Stop()) }()
		}
		warm, result, err := b.both(ctx, load.HTTPSpec{URL: process.URL, Keys: keys, Space: space, Connections: connections}, nothing)
		if err != nil {
			return err
		}
		ended := time.Now()
		if flusher != nil {
			err = stage.Await(ctx, drainPatience, "the naive worker", func(ctx context.Context) (bool, error) {
				left, err := flusher.Left(ctx)
				return left == 0, err
			})
		}
		if err != nil {
			return err
		}
		drain := time.Since(ended)
		name := string(keys) + "/" + peer
		if peer != "noop" { // which has nothing to add up
			if err := b.settle(ctx, stage, name, counted{acknowledged: -1}, warm, result); err != nil {
				return err
			}
		}
		b.noteSingle(name, result, drain)
		return nil
	}
}

// singleWebdis measures webdis in front of the same Redis. Postgres never hears of it, so the sum is Redis's.
func singleWebdis(ctx context.Context, b *bench) (err error) {
	stage, err := b.stage(ctx, "single")
	if err != nil {
		return err
	}
	if err := stage.Reset(ctx, space); err != nil {
		return err
	}
	if err := stage.WarmPlain(ctx, "", space); err != nil {
		return err
	}
	process, err := load.Webdis(ctx, stage.RedisURL)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, process.Stop()) }()
	spec := load.HTTPSpec{URL: process.URL, Keys: load.Uniform, Space: space, Connections: connections, Form: load.FormWebdis}
	warm, result, err := b.both(ctx, spec, nothing)
	if err != nil {
		return err
	}
	sum, err := stage.SumPlain(ctx, space)
	if err != nil {
		return err
	}
	const name = "uniform/webdis"
	count := report.Count{Stored: sum, Acknowledged: -1, Load: warm.Requests + result.Requests, Cut: 2 * connections}
	if err := b.check(name, count); err != nil {
		return err
	}
	b.noteSingle(name, result, 0)
	return nil
}

// cpuTimes are the CPU times of processes so far.
type cpuTimes map[string]time.Duration

// cpuOrder is how tables show them.
var cpuOrder = []string{"api", "worker", "scheduler", "redis", "postgres"}

func (b *bench) readCPU(sys *system) (cpuTimes, error) {
	pids := map[string][]int{"redis": {b.world.Redis.Pid()}, "postgres": {b.world.Postgres.Pid()}}
	if sys.api != nil {
		pids["api"] = []int{sys.api.PID}
	}
	if sys.scheduler != nil {
		pids["scheduler"] = []int{sys.scheduler.PID}
	}
	for _, w := range sys.workers {
		if w != nil {
			pids["worker"] = append(pids["worker"], w.PID)
		}
	}
	times := make(cpuTimes, len(pids))
	for name, list := range pids {
		used, err := proc.CPU(list...)
		if err != nil {
			return nil, err
		}
		times[name] = used
	}
	return times, nil
}

func (t cpuTimes) since(before cpuTimes) cpuTimes {
	used := make(cpuTimes, len(t))
	for name, time := range t {
		used[name] = time - before[name]
	}
	return used
}

func (t cpuTimes) sum() time.Duration {
	var sum time.Duration
	for _, time := range t {
		sum += time
	}
	return sum
}

// noteCPU keeps what each process used for that many increments, as if they had been a million.
func (b *bench) noteCPU(keys string, used cpuTimes, increments int64) {
	if b.cpu[keys] == nil {
		b.cpu[keys] = make(map[string][]float64)
	}
	for name, time := range used {
		b.cpu[keys][name] = append(b.cpu[keys][name], time.Seconds()*million/float64(increments))
	}
}
