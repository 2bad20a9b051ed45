package main

import (
	"context"
	"fmt"
	"time"

	"github.com/afterwrite/afterwrite/proof/bench/load"
	"github.com/afterwrite/afterwrite/proof/bench/report"
	"github.com/afterwrite/afterwrite/proof/world"
)

// historyShare is the goal for the rate of increments on counters with a history.
const historyShare = 0.5

// historyOf are the parts of the names of runs with and without histories.
var historyOf = map[bool]string{false: "off", true: "on"}

// historyName names a run: history/on/uniform, or history/off/batch.
func historyName(on bool, keys load.Keys, batch int) string {
	if batch > 0 {
		return "history/" + historyOf[on] + "/batch"
	}
	return "history/" + historyOf[on] + "/" + string(keys)
}

// historyComparisons are the costs of a history. The sustained rates count, too: a flush writes a row for each operation.
func historyComparisons() []comparison {
	costs := func(id, what string, keys load.Keys, batch int, goal report.Goal) []comparison {
		on, off := historyName(true, keys, batch), historyName(false, keys, batch)
		return []comparison{
			{"history-" + id, what + ", with a history: without", on + "/rate", off + "/rate", without, report.PerSecond, goal},
			{
				"history-" + id + "-sustained", what + ", until drained, with a history: without", on + "/sustained", off + "/sustained",
				without, report.PerSecond, noGoal(),
			},
		}
	}
	list := costs("uniform", "increments, uniform", load.Uniform, 0, atLeast(historyShare))
	list = append(list, costs("zipf", "increments, zipf", load.Zipf, 0, noGoal())...)
	list = append(list, costs("hot", "increments, one hot key", load.Hot, 0, noGoal())...)
	list = append(list, costs("batch", "operations in batches of 1,000", load.Uniform, batchSize, noGoal())...)
	return append(list,
		comparison{
			"history-redis-first", "Redis memory of the first operation of a counter that Postgres lacks", "history/memory/first", "", "",
			report.Bytes, noGoal(),
		},
		comparison{
			"history-redis", "Redis memory of each further operation", "history/memory/further", "", "", report.Bytes, noGoal(),
		},
		comparison{
			"history-postgres", "Postgres bytes per operation, with the index", historyName(true, load.Uniform, 0) + "/bytes", "", "",
			report.Bytes, noGoal(),
		},
	)
}

// historyGroups are the runs of historyComparisons.
func historyGroups() [][]run {
	neighbours := func(rounds int, keys load.Keys, batch int) []run {
		return []run{
			{name: historyName(false, keys, batch), rounds: rounds, do: recorded(false, keys, batch)},
			{name: historyName(true, keys, batch), rounds: rounds, do: recorded(true, keys, batch)},
		}
	}
	return [][]run{
		neighbours(0, load.Uniform, 0),
		neighbours(some, load.Zipf, 0),
		neighbours(some, load.Hot, 0),
		neighbours(some, load.Uniform, batchSize),
		{{name: "history/memory", rounds: once, do: historyMemory}},
	}
}

// recorded measures increments with or without a history, while one worker flushes: single ones, or in batches.
func recorded(on bool, keys load.Keys, batch int) func(context.Context, *bench) error {
	name := historyName(on, keys, batch)
	return func(ctx context.Context, b *bench) error {
		stage, err := b.preparedOn(ctx, world.StageOptions{Name: historyStage(on), History: on}, space)
		if err != nil {
			return err
		}
		operations, bytes, err := stage.Operations(ctx)
		if err != nil {
			return err
		}
		sys, err := start(ctx, stage)
		if err != nil {
			return err
		}
		spec, each := singles(sys.api.URL, keys, load.FormIncrement), 1
		if batch > 0 {
			spec.Batch, spec.Connections, each = batch, batchConnections, batch
		}
		var used cpuTimes
		warm, result, err := b.loadTwice(ctx, spec, func() (err error) {
			used, err = b.readCPU(sys)
			return err
		})
		if err != nil {
			return err
		}
		// A row has the time when its transaction began, and a transaction with many operations takes long. So ask Redis.
		drain, _, err := stage.Clean(ctx, drainPatience)
		if err != nil {
			return err
		}
		after, err := b.readCPU(sys)
		if err != nil {
			return err
		}
		warm.Requests *= int64(each)
		result.Requests *= int64(each)
		err = b.settle(ctx, name, sys, report.Count{Load: warm.Requests + result.Requests, Cut: int64(2 * spec.Connections * each)}, 0)
		if err != nil {
			return err
		}
		if on {
			if err := b.noteOperations(ctx, name, sys, operations, bytes); err != nil {
				return err
			}
		}
		used = after.since(used)
		for _, process := range cpuOrder {
			b.note(name+"/"+process, perMillion(used[process], result.Requests))
		}
		b.note(name+"/rate", result.PerSecond*float64(each))
		b.note(name+"/sustained", float64(result.Requests)/(result.Seconds+drain.Seconds()))
		b.note(name+"/drain", drain.Seconds())
		b.note(name+"/p50", float64(result.P50)/float64(time.Millisecond))
		b.note(name+"/p99", float64(result.P99)/float64(time.Millisecond))
		return nil
	}
}

// historyStage is the name of the stages with and without histories.
func historyStage(on bool) string { return "history-" + historyOf[on] }

// noteOperations requires an operation in Postgres for each increment since the start of the run, and records the bytes of each.
func (b *bench) noteOperations(ctx context.Context, name string, sys *system, operations, bytes int64) error {
	sum, _, err := sys.stage.Sum(ctx)
	if err != nil {
		return err
	}
	nowOperations, nowBytes, err := sys.stage.Operations(ctx)
	if err != nil {
		return err
	}
	added := nowOperations - operations
	if added != sum-sys.sum || added == 0 {
		return fmt.Errorf("%w: %d operations were recorded, and the sum grew by %d", errSum, added, sum-sys.sum)
	}
	b.note(name+"/bytes", float64(nowBytes-bytes)/float64(added))
	return nil
}

// Records in Redis are measured on so many counters, with so many records each.
const (
	recordedCounters  = 10_000
	recordsPerCounter = 10
)

// historyMemory measures the memory of records in Redis. It makes counters dirty without a worker, with and without a history: the
// difference is the memory of their first records. Then it writes them again.
func historyMemory(ctx context.Context, b *bench) error {
	grown := make(map[bool]float64)
	var further float64
	for _, on := range []bool{false, true} {
		stage, err := b.preparedOn(ctx, world.StageOptions{Name: historyStage(on), History: on}, space)
		if err != nil {
			return err
		}
		before, err := atRest(ctx, stage)
		if err != nil {
			return err
		}
		dirty, err := writtenTimes(ctx, stage, 1)
		if err != nil {
			return err
		}
		grown[on] = dirty - before
		if !on {
			continue
		}
		last, err := writtenTimes(ctx, stage, recordsPerCounter-1)
		if err != nil {
			return err
		}
		further = (last - dirty) / (recordsPerCounter - 1)
	}
	b.note("history/memory/first", (grown[true]-grown[false])/recordedCounters)
	b.note("history/memory/further", further/recordedCounters)
	return nil
}

// writtenTimes increments the counters so often, and returns the memory of Redis without the tasks in Asynq's queues.
func writtenTimes(ctx context.Context, stage *world.Stage, times int) (float64, error) {
	api, err := stage.Start(ctx, "api")
	if err != nil {
		return 0, err
	}
	for range times {
		if err := fill(ctx, api.URL, space/recordedCounters, recordedCounters, ""); err != nil {
			return 0, err
		}
	}
	if err := stage.StopAll(); err != nil {
		return 0, err
	}
	if err := withoutQueues(ctx, stage); err != nil {
		return 0, err
	}
	return atRest(ctx, stage)
}
