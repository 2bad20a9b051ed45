package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/proof/bench/load"
	"github.com/afterwrite/afterwrite/proof/bench/report"
	"github.com/afterwrite/afterwrite/proof/world"
)

// respLoad is a load over the Redis protocol: redis-benchmark with 50 connections.
type respLoad struct {
	name     string
	pipeline int // commands in flight on each connection
	space    int // counters
	// perSecond is the approximate rate of afterwrite and of a plain Redis. It sets the number of commands.
	perSecond, plainPerSecond int
}

// The loads. Only the first two have a plain Redis to compare with at each length of pipelines.
var (
	respUniform    = respLoad{"resp-uniform", pipelined, space, 80_000, incrementsPerSecond}
	respHot        = respLoad{"resp-hot", pipelined, 1, 400_000, incrementsPerSecond}
	respHotLong    = respLoad{"resp-hot-100", 100, 1, 800_000, 600_000}
	respOneHot     = respLoad{"resp-one-hot", 1, 1, 40_000, 80_000}
	respOneUniform = respLoad{"resp-one-uniform", 1, space, 20_000, 80_000}
)

// runs returns the run of afterwrite, and that of a plain Redis.
func (l respLoad) runs() []run {
	return []run{{name: l.name + "/afterwrite", do: l.afterwrite}, {name: l.name + "/redis", do: l.plain}}
}

// respComparisons compares the Redis protocol with HTTP, with a plain Redis, and with webdis.
func respComparisons() []comparison {
	against := func(l respLoad, id, what, peer, peerName string, goal report.Goal) comparison {
		return comparison{l.name + "-" + id, "Redis protocol, " + what, l.name + "/afterwrite/rate", peer, peerName, report.PerSecond, goal}
	}
	plain := func(l respLoad, what string, goal report.Goal) comparison {
		return against(l, "redis", what+": a plain Redis", l.name+"/redis/rate", "Redis", goal)
	}
	return []comparison{
		against(respUniform, "http", "uniform, -P 16, flushed: single increments over HTTP", uniformRate, "HTTP", atLeast(3.5)),
		plain(respUniform, "uniform, -P 16, flushed", atLeast(0.14)),
		plain(respHot, "one hot key, -P 16", atLeast(0.7)),
		plain(respHotLong, "one hot key, -P 100", atLeast(0.8)),
		against(respOneHot, "webdis", "one hot key, -P 1: webdis, which does not write to Postgres", "uniform/webdis/rate", "webdis",
			atLeast(1.2)),
		against(respOneHot, "noop", "one hot key, -P 1: the same server without anything behind it", respOneHot.name+"/noop/rate", "no-op",
			noGoal()),
		{
			"resp-noop-webdis", "that server without anything behind it, -P 1: webdis", respOneHot.name + "/noop/rate",
			"uniform/webdis/rate", "webdis", report.PerSecond, noGoal(),
		},
		against(respOneUniform, "webdis", "uniform, -P 1, flushed: webdis", "uniform/webdis/rate", "webdis", atLeast(0.7)),
		{
			"resp-latency", "p99 of an INCRBY over the Redis protocol at half of the maximum rate without pipelines",
			"resp-latency/p99", "", "", report.Millis, atMost(3),
		},
	}
}

// respGroups are the runs of respComparisons. The order of the groups counts: the latency needs the maximum rate.
func respGroups() [][]run {
	return [][]run{
		append(respUniform.runs(), respHot.runs()...),
		append(
			respHotLong.runs(), respOneHot.runs()[0], run{name: respOneHot.name + "/noop", do: respOneHot.noop}, respOneUniform.runs()[0],
		),
		{{name: "resp-latency", do: respLatency}},
	}
}

// freeAddress returns 127.0.0.1 with a free port.
func freeAddress() (string, error) {
	port, err := local.FreePort()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), err
}

// respRunning starts afterwrite with the Redis protocol, and returns its URL.
func (b *bench) respRunning(ctx context.Context) (*system, string, error) {
	addr, err := freeAddress()
	if err != nil {
		return nil, "", err
	}
	sys, err := b.running(ctx, world.Current, "AFTERWRITE_RESP_ADDR="+addr)
	return sys, "redis://" + addr + "/0", err
}

// measure runs redis-benchmark for a quarter of a second, and then for the duration of the benchmark.
func (l respLoad) measure(ctx context.Context, b *bench, url string, perSecond int) (rate float64, count report.Count, err error) {
	for _, n := range []int{perSecond / 4, perSecond * b.seconds} {
		if rate, err = load.RedisBenchmark(ctx, url, l.pipeline, n, l.space); err != nil {
			return 0, count, err
		}
		count.Load += int64(n)
		count.Cut += int64(load.RedisOvershoot(l.pipeline))
	}
	return rate, count, nil
}

func (l respLoad) afterwrite(ctx context.Context, b *bench) error {
	sys, url, err := b.respRunning(ctx)
	if err != nil {
		return err
	}
	rate, count, err := l.measure(ctx, b, url, l.perSecond)
	if err != nil {
		return err
	}
	ended := time.Now()
	if err := sys.stage.Drained(ctx, drainPatience); err != nil {
		return err
	}
	name := l.name + "/afterwrite"
	if err := b.settle(ctx, name, sys, count, 0); err != nil {
		return err
	}
	drain, err := drainAfter(ctx, sys.stage, ended)
	if err != nil {
		return err
	}
	b.note(name+"/rate", rate)
	b.note(name+"/drain", drain)
	return nil
}

// plain measures a Redis with the same durability, over TCP as afterwrite: the others use a unix socket, which is faster.
func (l respLoad) plain(ctx context.Context, b *bench) (err error) {
	server, err := local.StartRedis(ctx, local.RedisOptions{Dir: filepath.Join(b.world.Dir, "plain"), AppendOnly: true})
	if err != nil {
		return fmt.Errorf("start a plain redis: %w", err)
	}
	defer func() { err = errors.Join(err, server.Stop(context.WithoutCancel(ctx))) }()
	rate, _, err := l.measure(ctx, b, server.URL(), l.plainPerSecond)
	b.note(l.name+"/redis/rate", rate)
	return err
}

// noop measures afterwrite's server of the protocol without anything behind it.
func (l respLoad) noop(ctx context.Context, b *bench) (err error) {
	peer, err := load.StartPeer(ctx, b.world.Dir, "noop", "", "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, peer.Stop()) }()
	rate, _, err := l.measure(ctx, b, peer.RedisURL, l.plainPerSecond)
	b.note(l.name+"/noop/rate", rate)
	return err
}

// respLatency measures the latency of single INCRBYs at half of the maximum rate.
func respLatency(ctx context.Context, b *bench) error {
	const most = "resp-one-uniform/afterwrite"
	if len(b.notes.figures[most+"/rate"]) == 0 {
		if err := respOneUniform.afterwrite(ctx, b); err != nil {
			return fmt.Errorf("measure the maximum rate: %w", err)
		}
		if err := b.stopAll(); err != nil {
			return err
		}
	}
	sys, url, err := b.respRunning(ctx)
	if err != nil {
		return err
	}
	spec := load.OpenSpec{
		URL: url, Space: space, Connections: connections, Duration: warmUp, Seed: b.seed(),
		Rate: report.Median(b.notes.figures[most+"/rate"]) * halfPercent / 100,
	}
	warm, err := load.Open(ctx, spec)
	if err != nil {
		return err
	}
	spec.Duration, spec.Seed = b.duration(), spec.Seed+1
	result, err := load.Open(ctx, spec)
	if err != nil {
		return err
	}
	if err := sys.stage.Drained(ctx, drainPatience); err != nil {
		return err
	}
	if failed := warm.Failed + result.Failed; failed > 0 {
		return fmt.Errorf("%d commands failed", failed)
	}
	if result.LateP99 > lateMax {
		return fmt.Errorf("the load generator was %v late, more than %v", result.LateP99, lateMax)
	}
	if err := b.settle(ctx, "resp-latency", sys, report.Count{Load: warm.Sent + result.Sent}, 0); err != nil {
		return err
	}
	b.noteLatency("resp-latency", spec.Rate, result, nil)
	return nil
}
