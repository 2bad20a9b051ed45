package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/afterwrite/afterwrite/proof/bench/load"
	"github.com/afterwrite/afterwrite/proof/bench/report"
	"github.com/afterwrite/afterwrite/proof/world"
)

// previousCommit is the commit of the previous version. The benchmark builds it, and measures it in the same rounds.
const previousCommit = "8517fb405c3f3e06630a1ced3f5e579363f9bb66"

// run is one measurement. The names of its figures begin with its name and a slash.
type run struct {
	name   string
	rounds int // how many of the first rounds have the run; 0 means all
	do     func(ctx context.Context, b *bench) error
}

const (
	once = 1 // for counts and sizes, which do not vary, for figures without a goal, and for the largest run
	some = 3 // for the longest runs
)

// comparison is a row of the table, with the names of the figures that it compares.
type comparison struct {
	id, what string
	subject  string
	peer     string // "" if there is no peer
	peerName string
	unit     report.Unit
	goal     report.Goal
}

func atLeast(bound float64) report.Goal { return report.Goal{AtLeast: bound} }
func atMost(bound float64) report.Goal  { return report.Goal{AtMost: bound} }

// within is an upper bound for afterwrite's own figure, not for the ratio.
func within(bound float64) report.Goal { return report.Goal{AtMost: bound, Absolute: true} }

// noGoal is for rows that are only printed.
func noGoal() report.Goal { return report.Goal{} }

const (
	// flushInterval is the default of AFTERWRITE_FLUSH_INTERVAL in seconds.
	flushInterval = 1.0

	// Names of figures that are used more than once.
	uniformRate = "uniform/afterwrite/rate"
	zipfRate    = "zipf/afterwrite/rate"
	hotRate     = "hot/afterwrite/rate"
	batchRate   = "batch/afterwrite/rate"
	drainRate   = "million/afterwrite/drain"

	previousName = string(world.Previous)
	without      = "without" // the name of a peer that differs in one setting
)

// comparisons returns the rows of the table in their order.
func comparisons(full bool) []comparison {
	list := singleComparisons()
	list = append(list, batchComparisons()...)
	list = append(list, respComparisons()...)
	list = append(list, redisComparisons()...)
	list = append(list, drainComparisons()...)
	list = append(list, mappedComparisons()...)
	list = append(list, replicatedComparisons()...)
	list = append(list, historyComparisons()...)
	list = append(list, otherComparisons()...)
	if full {
		list = append(list, fullComparisons()...)
	}
	return list
}

// keysLabel are the names of the distributions in the table.
var keysLabel = map[load.Keys]string{load.Uniform: "uniform", load.Zipf: "zipf", load.Hot: "one hot key"}

func singleComparisons() []comparison {
	single := func(peer, peerName, peerLabel string, keys load.Keys, goal report.Goal) comparison {
		return comparison{
			fmt.Sprintf("single-%s-%s", keys, peer), fmt.Sprintf("increments, %s: %s", keysLabel[keys], peerLabel),
			fmt.Sprintf("%s/afterwrite/rate", keys), fmt.Sprintf("%s/%s/rate", keys, peer), peerName, report.PerSecond, goal,
		}
	}
	return []comparison{
		single("noop", "no-op", "no-op handler", load.Uniform, atLeast(0.50)),
		single("noop", "no-op", "no-op handler", load.Zipf, atLeast(0.65)),
		single("noop", "no-op", "no-op handler", load.Hot, atLeast(0.85)),
		single("direct", "direct", "direct Postgres", load.Uniform, atLeast(2.8)),
		single("direct", "direct", "direct Postgres", load.Zipf, atLeast(4)),
		single("direct", "direct", "direct Postgres", load.Hot, atLeast(20)),
		single("through", "through", "write-through", load.Uniform, noGoal()),
		{
			"single-uniform-naive", "increments, uniform, until drained: naive write-behind",
			"uniform/afterwrite/sustained", "uniform/naive/sustained", "naive", report.PerSecond, atLeast(4),
		},
		single("webdis", "webdis", "webdis, which does not write to Postgres", load.Uniform, noGoal()),
		{
			"get-uniform-noop", "reads of warm counters, uniform: no-op handler",
			"get/afterwrite/rate", "get/noop/rate", "no-op", report.PerSecond, atLeast(0.75),
		},
		{
			"single-uniform-keyed", "increments, uniform, with an API key: without",
			"keyed/afterwrite/rate", uniformRate, without, report.PerSecond, atLeast(0.95),
		},
		{
			"get-uniform-keyed", "reads of warm counters, uniform, with an API key: without",
			"get/keyed/rate", "get/afterwrite/rate", without, report.PerSecond, atLeast(0.95),
		},
	}
}

func batchComparisons() []comparison {
	return []comparison{
		{
			"batch-incrby", "operations in batches of 1,000, flushed: `redis-benchmark -P 16 INCRBY` with as many keys",
			batchRate, "batch/incrby/rate", "INCRBY", report.PerSecond, atLeast(0.16),
		},
		{
			"batch-previous", "operations in batches of 1,000, flushed: the previous version",
			batchRate, "batch/previous/rate", previousName, report.PerSecond, atLeast(1.5),
		},
		{
			"batch-sustained", "operations in batches of 1,000, until drained: the previous version",
			"batch/afterwrite/sustained", "batch/previous/sustained", previousName, report.PerSecond, noGoal(),
		},
	}
}

func redisComparisons() []comparison {
	redis := func(keys load.Keys, goal report.Goal) comparison {
		return comparison{
			fmt.Sprintf("redis-cpu-%s", keys),
			fmt.Sprintf("CPU of Redis per 1,000,000 increments, flushed, %s: the previous version", keysLabel[keys]),
			fmt.Sprintf("%s/afterwrite/redis", keys), fmt.Sprintf("%s/previous/redis", keys), previousName, report.CPUSeconds, goal,
		}
	}
	return []comparison{redis(load.Uniform, atMost(0.45)), redis(load.Zipf, atMost(0.45)), redis(load.Hot, atMost(0.25))}
}

func drainComparisons() []comparison {
	return []comparison{
		{
			"drain-pgbench", "drain of 1,000,000 dirty keys, 2 workers, rows: pgbench's upsert",
			drainRate, "pgbench/rate", "pgbench", report.PerSecond, atLeast(0.55),
		},
		{
			"drain-steady", "drain of 1,000,000 dirty keys, between 10 % and 90 % of the rows: pgbench's upsert",
			"million/afterwrite/steady", "pgbench/rate", "pgbench", report.PerSecond, noGoal(),
		},
		{
			"drain-previous", "drain of 1,000,000 dirty keys: the previous version",
			drainRate, "million/previous/drain", previousName, report.PerSecond, noGoal(),
		},
		{
			"drain-new", "drain of 2,000,000 new keys that were written blind, 2 workers, rows: pgbench's insert",
			"new/afterwrite/drain", "new/pgbench/rate", "pgbench", report.PerSecond, atLeast(0.3),
		},
		{
			"drain-new-write", "slowest write to another key during that drain of new keys",
			"new/afterwrite/slowest", "", "", report.Millis, atMost(30),
		},
	}
}

// mappedComparisons are the costs of a mapping: its flush writes two rows for each counter.
func mappedComparisons() []comparison {
	costs := func(keys load.Keys) comparison {
		return comparison{
			fmt.Sprintf("mapped-%s", keys), fmt.Sprintf("increments, %s, until drained, with a mapping: without", keysLabel[keys]),
			fmt.Sprintf("%s/mapped/sustained", keys), fmt.Sprintf("%s/afterwrite/sustained", keys), without, report.PerSecond,
			atLeast(mappedShare),
		}
	}
	update := func(keys load.Keys, goal report.Goal) comparison {
		return comparison{
			fmt.Sprintf("mapped-%s-update", keys),
			fmt.Sprintf("increments, %s, until drained, with a mapping: direct UPDATE of the column", keysLabel[keys]),
			fmt.Sprintf("%s/mapped/sustained", keys), fmt.Sprintf("%s/update/sustained", keys), "UPDATE", report.PerSecond, goal,
		}
	}
	return []comparison{
		costs(load.Uniform), costs(load.Zipf),
		{
			"mapped-drain", "drain of 1,000,000 dirty keys with a mapping: without",
			"million/mapped/drain", drainRate, without, report.PerSecond, atLeast(mappedShare),
		},
		update(load.Uniform, noGoal()), update(load.Zipf, atLeast(4)), update(load.Hot, noGoal()),
	}
}

// mappedShare is the goal for rates with a mapping: a flush may take 1.5 times as long.
const mappedShare = 0.67

// replicatedComparisons are the costs of durability=replica.
func replicatedComparisons() []comparison {
	costs := func(id, what string, keys load.Keys, batch int) comparison {
		return comparison{
			"replica-" + id, what + ", each on a replica before its answer: in memory only",
			replicatedName("replica", keys, batch) + "/rate", replicatedName("memory", keys, batch) + "/rate", "memory", report.PerSecond,
			atLeast(replicaShare),
		}
	}
	return []comparison{
		costs("uniform", "increments, uniform, 64 clients", load.Uniform, 0),
		costs("hot", "increments, one hot key, 64 clients", load.Hot, 0),
		costs("batch", "operations in batches of 1,000, flushed", load.Uniform, batchSize),
	}
}

// replicaShare is the goal for rates with durability=replica, on the same Redis with one replica.
const replicaShare = 0.85

func otherComparisons() []comparison {
	return []comparison{
		{"coalesce", "rows written per 1,000,000 increments, 100 keys, 10 s", "coalesce/rows", "", "", report.Rows, atMost(1100)},
		{"latency-half", "p99 of a write at half of the maximum rate", "latency-50/p99", "", "", report.Millis, atMost(5)},
		{
			"lag-half", "p99 of the sync lag at half of the maximum rate",
			"latency-50/lag", "", "", report.Seconds, atMost(2.5 * flushInterval),
		},
		{
			"memory-clean", "Redis memory per clean key: a plain string",
			"memory/clean", "memory/string", "string", report.Bytes, within(130),
		},
		{
			"memory-dirty", "Redis memory per dirty key: a plain string",
			"memory/dirty", "memory/string", "string", report.Bytes, within(200),
		},
		{
			"memory-hinted", "Redis memory per dirty key with Asynq's tasks: a plain string",
			"memory/hinted", "memory/string", "string", report.Bytes, noGoal(),
		},
		{
			"cost-row", "CPU of a flushed row, 1,000,000 keys: 10,000 keys",
			"million/afterwrite/row", "ten-thousand/afterwrite/row", "10,000", report.Micros, atMost(1.25),
		},
		{
			"idle", "Redis commands per second when idle, with one process of each kind",
			"idle/commands", "", "", report.PerSecond, atMost(150),
		},
		{
			"allocations", "allocations per increment in the api, not counting Echo's",
			"allocations/above", "", "", report.Allocs, atMost(15),
		},
	}
}

func fullComparisons() []comparison {
	return []comparison{
		{
			"cost-write", "CPU of a write, 1,000,000 keys: 10,000 keys",
			"million/afterwrite/write", "ten-thousand/afterwrite/write", "10,000", report.Micros, atMost(1.25),
		},
		{
			"cost-write-10m", "CPU of a write, 10,000,000 keys: 10,000 keys",
			"ten-million/afterwrite/write", "ten-thousand/afterwrite/write", "10,000", report.Micros, atMost(1.25),
		},
		{
			"cost-row-10m", "CPU of a flushed row, 10,000,000 keys: 10,000 keys",
			"ten-million/afterwrite/row", "ten-thousand/afterwrite/row", "10,000", report.Micros, atMost(1.25),
		},
	}
}

// groups returns the runs of a round. The order of the runs in a group changes from round to round, because they are compared with each
// other. The order of the groups is fixed, because some groups need figures of others. Runs of the two versions are neighbours.
func groups() [][]run {
	allKeys := []load.Keys{load.Uniform, load.Zipf, load.Hot}
	single := make([]run, 0, 6*len(allKeys)+4)
	single = append(single, run{name: "keyed/afterwrite", do: singleKeyed})
	for _, keys := range allKeys {
		single = append(single,
			run{name: string(keys) + "/afterwrite", do: singleAfterwrite(world.Current, keys)},
			run{name: string(keys) + "/previous", do: singleAfterwrite(world.Previous, keys)},
			run{name: string(keys) + "/noop", do: singlePeer("noop", keys, load.FormIncrement)},
			run{name: string(keys) + "/direct", do: singlePeer("direct", keys, load.FormIncrement)},
			run{name: string(keys) + "/mapped", do: singleMapped(keys)},
			run{name: string(keys) + "/update", do: singleUpdate(keys)},
		)
	}
	single = append(single,
		run{name: "uniform/through", rounds: once, do: singlePeer("through", load.Uniform, load.FormIncrement)},
		run{name: "uniform/naive", rounds: some, do: singlePeer("naive", load.Uniform, load.FormIncrement)},
		run{name: "uniform/webdis", do: singleWebdis},
	)
	return slices.Concat([][]run{single}, respGroups(), historyGroups(), laterGroups())
}

func laterGroups() [][]run {
	return [][]run{
		{
			{name: "get/keyed", do: getKeyed},
			{name: "get/afterwrite", do: getAfterwrite},
			{name: "get/noop", do: singlePeer("noop", load.Uniform, load.FormGet)},
		},
		{
			{name: "batch/afterwrite", do: batchAfterwrite(world.Current)},
			{name: "batch/previous", do: batchAfterwrite(world.Previous)},
			{name: "batch/incrby", do: batchIncrBy},
		},
		{
			{name: "million/afterwrite", do: keysOf("million", world.Current, million)},
			{name: "million/mapped", rounds: some, do: mappedMillion},
			{name: "million/previous", rounds: some, do: keysOf("million", world.Previous, million)},
			{name: "pgbench", do: pgbenchUpsert},
			{name: "ten-thousand/afterwrite", do: keysOf("ten-thousand", world.Current, 10_000)},
		},
		{
			{name: "new/afterwrite", rounds: some, do: newAfterwrite},
			{name: "new/pgbench", rounds: some, do: newPGBench},
		},
		{
			{name: latencyName(halfPercent), do: latency(halfPercent)},
			{name: latencyName(10), rounds: once, do: latency(10)},
			{name: latencyName(25), rounds: once, do: latency(25)},
			{name: latencyName(75), rounds: once, do: latency(75)},
		},
		{
			{name: replicatedName("memory", load.Uniform, 0), do: replicated("memory", load.Uniform, 0)},
			{name: replicatedName("replica", load.Uniform, 0), do: replicated("replica", load.Uniform, 0)},
		},
		{
			{name: replicatedName("memory", load.Hot, 0), do: replicated("memory", load.Hot, 0)},
			{name: replicatedName("replica", load.Hot, 0), do: replicated("replica", load.Hot, 0)},
		},
		{
			{name: replicatedName("memory", load.Uniform, batchSize), do: replicated("memory", load.Uniform, batchSize)},
			{name: replicatedName("replica", load.Uniform, batchSize), do: replicated("replica", load.Uniform, batchSize)},
		},
		{{name: "coalesce", rounds: once, do: coalesce}},
		{{name: "memory", rounds: once, do: memory}},
		{{name: "idle", rounds: once, do: idle}},
		{{name: "allocations", rounds: once, do: allocations}},
		{{name: "ten-million/afterwrite", rounds: once, do: keysOf("ten-million", world.Current, 10*million)}},
	}
}

// rotated returns the runs in the order of a round. Each round begins with a different run, and every second round goes backwards, so
// of two neighbours each comes first in some rounds.
func rotated(runs []run, round int) []run {
	step := 1
	if round%2 == 1 {
		step = len(runs) - 1 // one step backwards, modulo the length
	}
	order := make([]run, 0, len(runs))
	for i := range runs {
		order = append(order, runs[(round+i*step)%len(runs)])
	}
	return order
}

func latencyName(percent int) string { return fmt.Sprintf("latency-%d", percent) }
