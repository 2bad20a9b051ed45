package main

import (
	"context"
	"fmt"

	"github.com/afterwrite/afterwrite/bench/load"
	"github.com/afterwrite/afterwrite/bench/report"
)

// run is one measurement. What it notes has names that begin with its own and a slash.
type run struct {
	name string
	// once: only in the first round, since the figure is a count or a size, or only there for a plot.
	once bool
	do   func(ctx context.Context, b *bench) error
}

// comparison is a line of the table: what it says, and the names of what it compares.
type comparison struct {
	id, what string
	this     string
	peer     string // "": there is none
	peerName string
	unit     report.Unit
	goal     report.Goal
}

func atLeast(bound float64) report.Goal { return report.Goal{AtLeast: bound} }
func atMost(bound float64) report.Goal  { return report.Goal{AtMost: bound} }

// within is a goal for this side's own figure where the peer's is only shown beside it.
func within(bound float64) report.Goal { return report.Goal{AtMost: bound, OfThis: true} }

// flushInterval is AFTERWRITE_FLUSH_INTERVAL in seconds: its default.
const flushInterval = 1.0

// uniformRate is what afterwrite is compared by most: increments a second, spread evenly.
const uniformRate = "uniform/afterwrite/rate"

// comparisons are the lines of the table, in their order.
func comparisons(full bool) []comparison {
	list := []comparison{
		{
			"single-uniform-noop", "increments, uniform: no-op handler",
			uniformRate, "uniform/noop/rate", "no-op", report.PerSecond, atLeast(0.75),
		},
		{
			"single-zipf-noop", "increments, zipf: no-op handler",
			"zipf/afterwrite/rate", "zipf/noop/rate", "no-op", report.PerSecond, atLeast(0.75),
		},
		{
			"single-uniform-direct", "increments, uniform: direct Postgres",
			uniformRate, "uniform/direct/rate", "direct", report.PerSecond, atLeast(5),
		},
		{
			"single-hot-direct", "increments, one hot key: direct Postgres",
			"hot/afterwrite/rate", "hot/direct/rate", "direct", report.PerSecond, atLeast(40),
		},
		{
			"single-uniform-through", "increments, uniform: write-through",
			uniformRate, "uniform/through/rate", "through", report.PerSecond, atLeast(5),
		},
		{
			"single-uniform-naive", "increments, uniform, until drained: naive write-behind",
			"uniform/afterwrite/sustained", "uniform/naive/sustained", "naive", report.PerSecond, atLeast(4),
		},
		{
			"single-uniform-webdis", "increments, uniform: webdis, which keeps nothing",
			uniformRate, "uniform/webdis/rate", "webdis", report.PerSecond, atLeast(1),
		},
		{
			"batch-redis", "operations in batches of 1,000: `redis-benchmark -P 16` of the script",
			"batch/afterwrite/rate", "batch/redis/rate", "redis", report.PerSecond, atLeast(1),
		},
		{
			"drain-pgbench", "drain of 1,000,000 dirty keys, 2 workers, rows: pgbench's upsert",
			"million/drain", "pgbench/rate", "pgbench", report.PerSecond, atLeast(0.55),
		},
		{
			"drain-steady", "the same between 90 % and 10 % of the backlog",
			"million/steady", "pgbench/rate", "pgbench", report.PerSecond,
			report.Goal{},
		},
		{"coalesce", "rows written per 1,000,000 increments, 100 keys, 10 s", "coalesce/rows", "", "", report.Rows, atMost(1100)},
		{"latency-half", "p99 of a write at half of the maximum rate", "latency-50/p99", "", "", report.Millis, atMost(3)},
		{"lag-half", "p99 of the sync lag at that rate", "latency-50/lag", "", "", report.Seconds, atMost(2.5 * flushInterval)},
		{"memory-clean", "Redis, each clean key: a plain string", "memory/clean", "memory/string", "string", report.Bytes, within(130)},
		{"memory-dirty", "Redis, each dirty key: a plain string", "memory/dirty", "memory/string", "string", report.Bytes, within(260)},
		{
			"memory-hinted", "the same with the key's task in Asynq's queue",
			"memory/hinted", "memory/string", "string", report.Bytes,
			report.Goal{},
		},
		{
			"cost-write", "CPU of a write, 1,000,000 keys: 10,000 keys",
			"million/write", "ten-thousand/write", "10,000", report.Micros, atMost(1.25),
		},
		{
			"cost-row", "CPU of a flushed row, 1,000,000 keys: 10,000 keys",
			"million/row", "ten-thousand/row", "10,000", report.Micros, atMost(1.25),
		},
		{"allocations", "allocations of an increment in the api above Echo's own", "allocations/above", "", "", report.Allocs, atMost(15)},
	}
	if full {
		list = append(list,
			comparison{
				"cost-write-10m", "CPU of a write, 10,000,000 keys: 10,000 keys",
				"ten-million/write", "ten-thousand/write", "10,000", report.Micros, atMost(1.25),
			},
			comparison{
				"cost-row-10m", "CPU of a flushed row, 10,000,000 keys: 10,000 keys",
				"ten-million/row", "ten-thousand/row", "10,000", report.Micros, atMost(1.25),
			},
			comparison{
				"drain-inserts", "drain of 1,000,000 new keys, rows: pgbench's upsert of existing ones",
				"inserts/drain", "pgbench/rate", "pgbench", report.PerSecond,
				report.Goal{},
			},
		)
	}
	return list
}

// groups are the runs of a round. Those of one group are compared with each other, and change places from round to round;
// the groups stand in an order because some need what others have found out.
func groups() [][]run {
	single := []run{
		{name: "uniform/afterwrite", do: singleAfterwrite(load.Uniform)},
		{name: "uniform/noop", do: singlePeer("noop", load.Uniform)},
		{name: "uniform/direct", do: singlePeer("direct", load.Uniform)},
		{name: "uniform/through", do: singlePeer("through", load.Uniform)},
		{name: "uniform/naive", do: singlePeer("naive", load.Uniform)},
		{name: "uniform/webdis", do: singleWebdis},
		{name: "zipf/afterwrite", do: singleAfterwrite(load.Zipf)},
		{name: "zipf/noop", do: singlePeer("noop", load.Zipf)},
		{name: "hot/afterwrite", do: singleAfterwrite(load.Hot)},
		{name: "hot/direct", do: singlePeer("direct", load.Hot)},
	}
	batch := []run{{name: "batch/afterwrite", do: batchAfterwrite}, {name: "batch/redis", do: batchRedis}}
	many := []run{
		{name: "million", do: keysOf("million", million)},
		{name: "pgbench", do: pgbench},
		{name: "ten-thousand", do: keysOf("ten-thousand", 10_000)},
	}
	late := []run{
		{name: latencyName(halfPercent), do: latency(halfPercent)},
		{name: latencyName(10), once: true, do: latency(10)},
		{name: latencyName(25), once: true, do: latency(25)},
		{name: latencyName(75), once: true, do: latency(75)},
	}
	return [][]run{
		single, batch, many, late,
		{{name: "coalesce", once: true, do: coalesce}},
		{{name: "memory", once: true, do: memory}},
		{{name: "allocations", once: true, do: allocations}},
		{{name: "ten-million", once: true, do: keysOf("ten-million", 10*million)}, {name: "inserts", once: true, do: inserts}},
	}
}

// rotated is the runs in the order of that round.
func rotated(runs []run, round int) []run {
	at := round % len(runs)
	return append(append([]run{}, runs[at:]...), runs[:at]...)
}

func latencyName(percent int) string { return fmt.Sprintf("latency-%d", percent) }
