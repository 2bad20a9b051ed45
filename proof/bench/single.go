package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/afterwrite/afterwrite/proof/bench/load"
	"github.com/afterwrite/afterwrite/proof/bench/report"
	"github.com/afterwrite/afterwrite/proof/world"
)

const (
	// space is the number of keys. All exist as rows in Postgres and, for systems that use it, in Redis.
	space = 100_000
	// connections is the number of connections, each with one request in flight.
	connections = 200
	warmUp      = time.Second
)

// loadTwice loads a server for the warm-up, calls begin, and loads the server again for the measurement.
func (b *bench) loadTwice(ctx context.Context, spec load.HTTPSpec, begin func() error) (warm, result load.HTTPResult, err error) {
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

// seed returns the random seed of this round's warm-up. The measurement uses the next seed.
func (b *bench) seed() uint64 { return 2*uint64(b.round) + 1 } //nolint:gosec // never negative

// nothing is a step without an effect.
func nothing() error { return nil }

// singles describes the load of single requests on all keys of a stage.
func singles(url string, keys load.Keys, form load.Form) load.HTTPSpec {
	return load.HTTPSpec{URL: url, Keys: keys, Space: space, Connections: connections, Form: form}
}

// cutOff returns the number of answers in both loads. In each load, wrk may have missed one more answer on each connection.
func cutOff(warm, result load.HTTPResult) report.Count {
	return report.Count{Load: warm.Requests + result.Requests, Cut: 2 * connections}
}

// singleAfterwrite measures single increments over HTTP, while one worker flushes.
func singleAfterwrite(v world.Version, keys load.Keys) func(context.Context, *bench) error {
	return func(ctx context.Context, b *bench) error {
		sys, err := b.running(ctx, v)
		if err != nil {
			return err
		}
		var used cpuTimes
		warm, result, err := b.loadTwice(ctx, singles(sys.api.URL, keys, load.FormIncrement), func() (err error) {
			used, err = b.readCPU(sys)
			return err
		})
		if err != nil {
			return err
		}
		ended := time.Now()
		if err := sys.stage.Drained(ctx, drainPatience); err != nil {
			return err
		}
		after, err := b.readCPU(sys)
		if err != nil {
			return err
		}
		name := string(keys) + "/" + string(v)
		if err := b.settle(ctx, name, sys, cutOff(warm, result), 0); err != nil {
			return err
		}
		used = after.since(used)
		b.note(name+"/redis", perMillion(used["redis"], result.Requests))
		if v == world.Current {
			b.noteCPU(string(keys), used, result.Requests)
		}
		return b.noteSingle(ctx, sys.stage, name, result, ended)
	}
}

// noteSingle records the figures of a load. The sustained rate includes the time until the last write was in Postgres.
func (b *bench) noteSingle(ctx context.Context, stage *world.Stage, name string, result load.HTTPResult, ended time.Time) error {
	drain, err := drainAfter(ctx, stage, ended)
	if err != nil {
		return err
	}
	b.note(name+"/rate", result.PerSecond)
	b.note(name+"/sustained", float64(result.Requests)/(result.Seconds+drain))
	b.note(name+"/drain", drain)
	b.note(name+"/p50", result.P50.Seconds()*1000)
	b.note(name+"/p99", result.P99.Seconds()*1000)
	return nil
}

// drainAfter returns the time in seconds from the end of a load to the last row in Postgres.
func drainAfter(ctx context.Context, stage *world.Stage, ended time.Time) (float64, error) {
	flushed, err := stage.FlushedSince(ctx, ended)
	return max(0, flushed.Last.Sub(ended).Seconds()), err
}

// singlePeer measures single requests to a peer.
func singlePeer(peer string, keys load.Keys, form load.Form) func(context.Context, *bench) error {
	return func(ctx context.Context, b *bench) (err error) {
		stage, err := b.peerStage(ctx, "c:")
		if err != nil {
			return err
		}
		sys, err := on(ctx, stage, 0)
		if err != nil {
			return err
		}
		process, err := load.StartPeer(ctx, b.world.Dir, peer, stage.RedisURL, stage.DatabaseURL)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, process.Stop()) }()
		var flusher *load.Process
		if peer == "naive" {
			if flusher, err = load.StartPeer(ctx, b.world.Dir, "naive-worker", stage.RedisURL, stage.DatabaseURL); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, flusher.Stop()) }()
		}
		warm, result, err := b.loadTwice(ctx, singles(process.URL, keys, form), nothing)
		if err != nil {
			return err
		}
		ended := time.Now()
		if err := idlePeer(ctx, flusher); err != nil {
			return err
		}
		name := string(keys) + "/" + peer
		if form == load.FormGet {
			name = "get/" + peer
		}
		if peer != "noop" { // noop does not count
			if err := b.settle(ctx, name, sys, cutOff(warm, result), 0); err != nil {
				return err
			}
		}
		return b.noteSingle(ctx, stage, name, result, ended)
	}
}

// idlePeer waits until a peer's worker has executed all tasks. Without a worker it returns at once.
func idlePeer(ctx context.Context, flusher *load.Process) error {
	if flusher == nil {
		return nil
	}
	return world.Await(ctx, drainPatience, "the naive worker", func(ctx context.Context) (bool, error) {
		left, err := flusher.Left(ctx)
		return left == 0, err
	})
}

// apiKey is the key of the runs with API keys.
const apiKey = "aw_benchmark"

// apiKeys is the setting for apiKey.
func apiKeys() string {
	return fmt.Sprintf("AFTERWRITE_API_KEYS=bench:%x:read+write", sha256.Sum256([]byte(apiKey)))
}

// singleKeyed measures single increments that send an API key.
func singleKeyed(ctx context.Context, b *bench) error {
	sys, err := b.running(ctx, world.Current, apiKeys())
	if err != nil {
		return err
	}
	spec := singles(sys.api.URL, load.Uniform, load.FormIncrement)
	spec.APIKey = apiKey
	warm, result, err := b.loadTwice(ctx, spec, nothing)
	if err != nil {
		return err
	}
	if err := sys.stage.Drained(ctx, drainPatience); err != nil {
		return err
	}
	b.note("keyed/afterwrite/rate", result.PerSecond)
	return b.settle(ctx, "keyed/afterwrite", sys, cutOff(warm, result), 0)
}

// getAfterwrite measures reads of warm counters while worker and scheduler are idle.
func getAfterwrite(ctx context.Context, b *bench) error {
	return b.get(ctx, "get/afterwrite", "")
}

// getKeyed is the same with an API key.
func getKeyed(ctx context.Context, b *bench) error {
	return b.get(ctx, "get/keyed", apiKey, apiKeys())
}

func (b *bench) get(ctx context.Context, name, key string, settings ...string) error {
	sys, err := b.running(ctx, world.Current, settings...)
	if err != nil {
		return err
	}
	spec := singles(sys.api.URL, load.Uniform, load.FormGet)
	spec.APIKey = key
	_, result, err := b.loadTwice(ctx, spec, nothing)
	if err != nil {
		return err
	}
	sum, rows, err := sys.stage.Sum(ctx)
	if err != nil {
		return err
	}
	written, _, err := sys.counted(ctx)
	if err != nil {
		return err
	}
	if sum != sys.sum || rows != sys.rows || written != 0 {
		return fmt.Errorf("%w: reads changed the sum from %d to %d", errSum, sys.sum, sum)
	}
	b.note(name+"/rate", result.PerSecond)
	b.note(name+"/p99", result.P99.Seconds()*1000)
	return nil
}

// peerStage returns a stage for systems that keep a counter as a plain string in Redis. The Redis key is prefix and the counter's name.
func (b *bench) peerStage(ctx context.Context, prefix string) (*world.Stage, error) {
	stage, err := b.stage(ctx, world.StageOptions{Name: "peers"})
	if err != nil {
		return nil, err
	}
	if err := stage.Reset(ctx, space); err != nil {
		return nil, err
	}
	return stage, stage.WarmPlain(ctx, prefix, space)
}

// singleWebdis measures webdis in front of the same Redis. webdis does not use Postgres, so the sum comes from Redis.
func singleWebdis(ctx context.Context, b *bench) (err error) {
	stage, err := b.peerStage(ctx, "")
	if err != nil {
		return err
	}
	process, err := load.Webdis(ctx, stage.RedisURL)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, process.Stop()) }()
	warm, result, err := b.loadTwice(ctx, singles(process.URL, load.Uniform, load.FormWebdis), nothing)
	if err != nil {
		return err
	}
	count := cutOff(warm, result)
	if err := b.checkPlain(ctx, "uniform/webdis", stage, count); err != nil {
		return err
	}
	b.note("uniform/webdis/rate", result.PerSecond)
	return nil
}

// checkPlain compares the load's count with the sum of the plain strings in Redis.
func (b *bench) checkPlain(ctx context.Context, name string, stage *world.Stage, count report.Count) (err error) {
	count.Acknowledged = -1
	if count.Stored, err = stage.SumPlain(ctx, space); err != nil {
		return err
	}
	return b.check(name, count)
}
