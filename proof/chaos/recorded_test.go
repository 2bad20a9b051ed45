package main

import (
	"database/sql"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/proof/world"
)

func record(version int64, operation string, amount, value int64, request string) world.Record {
	return world.Record{
		Version: version, Lineage: 7, Operation: operation, Request: request,
		Amount: sql.NullInt64{Int64: amount, Valid: operation != kindDelete}, Value: sql.NullInt64{Int64: value, Valid: true},
	}
}

// sentAndRecorded are the writes of a counter that continues from 10, one of each kind and outcome, and its records.
func sentAndRecorded() (writes, world.Recorded) {
	sent := writes{
		newWrite(step{stepIncrement, 3}, 1, with(13, 1)),
		newWrite(step{stepIncrement, 3}, 1, silent), // in the same batch
		newWrite(step{stepSet, 40}, 2, with(40, 4)),
		newWrite(step{stepIncrement, 2}, 3, answer{outcome: refused}),
		newWrite(step{stepIncrement, 1}, 4, unsure),
		newWrite(step{stepIncrement, 5}, 5, unsure), // not applied
		newWrite(step{stepDelete, 0}, 6, silent),
	}
	return sent, world.Recorded{Key: "a", Row: world.State{Version: 5, Lineage: 7, Deleted: true}, Records: []world.Record{
		record(1, kindIncrement, 3, 13, "chaos-1"),
		record(2, kindIncrement, 3, 16, "chaos-1"),
		record(3, kindIncrement, 1, 17, "chaos-4"),
		record(4, kindSet, 40, 40, "chaos-2"),
		record(5, kindDelete, 0, 0, "chaos-6"),
	}}
}

func TestRecordsOfAllWritesAreAccepted(t *testing.T) {
	t.Parallel()
	sent, recorded := sentAndRecorded()
	require.Zero(t, sent.check(10, recorded, true, false))
	require.Zero(t, writes(nil).check(10, world.Recorded{}, true, false), "a counter that was never written")
	for i := range sent {
		sent[i].number = 0 // over the Redis protocol
		sent[i].version = 0
	}
	require.Zero(t, sent.check(10, recorded, false, false))
}

func TestBadRecordsAreFound(t *testing.T) {
	t.Parallel()
	type all = world.Recorded
	remove := func(from, to int) func(*all) {
		return func(r *all) { r.Records = slices.Delete(r.Records, from, to) }
	}
	for name, test := range map[string]struct {
		spoil func(*all)
		class world.RecordClass
	}{
		"all are missing":      {remove(0, 5), world.RecordGap},
		"the first is missing": {remove(0, 1), world.RecordGap},
		"one is missing":       {remove(2, 3), world.RecordGap},
		"the last is missing":  {remove(4, 5), world.RecordGap},
		"one is there twice":   {func(r *all) { r.Records = slices.Insert(r.Records, 1, r.Records[0]) }, world.RecordTwice},
		"a wrong value":        {func(r *all) { r.Records[2].Value.Int64++ }, world.RecordWrong},
		"another row":          {func(r *all) { r.Row.Deleted, r.Row.Value = false, 1 }, world.RecordRow},
		"the last write is lost with its record": {func(r *all) {
			remove(4, 5)(r)
			r.Row = world.State{Version: 4, Lineage: 7, Value: 40}
		}, world.RecordMissing},
		"a write is applied twice": {func(r *all) {
			r.Records = append(r.Records, record(6, kindDelete, 0, 0, "chaos-6"))
			r.Row.Version = 6
		}, world.RecordSurplus},
		"a refused write is applied": {func(r *all) {
			r.Records = append(r.Records, record(6, kindIncrement, 2, 2, "chaos-3"))
			r.Row = world.State{Version: 6, Lineage: 7, Value: 2}
		}, world.RecordSurplus},
		"an amount that leads to the same end": {func(r *all) {
			r.Records[1].Amount.Int64, r.Records[1].Value.Int64 = 4, 17
			r.Records[2].Amount.Int64 = 0
		}, world.RecordSurplus},
		"the request of another write":     {func(r *all) { r.Records[1].Request = "chaos-4" }, world.RecordSurplus},
		"no request":                       {func(r *all) { r.Records[1].Request = "" }, world.RecordSurplus},
		"a request that begins like it":    {func(r *all) { r.Records[1].Request = "chaos-1x" }, world.RecordSurplus},
		"an answered version is not there": {func(r *all) { r.Records[3], r.Records[2] = swapped(r.Records) }, world.RecordWrong},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sent, recorded := sentAndRecorded()
			test.spoil(&recorded)
			problem := sent.check(10, recorded, true, false)
			require.Equal(t, test.class, problem.Class, problem.Detail)
		})
	}
}

// swapped returns records 3 and 4 in the other order, with right values.
func swapped(records []world.Record) (later, earlier world.Record) {
	later, earlier = records[2], records[3]
	earlier.Version, later.Version, later.Value.Int64 = 3, 4, 41
	return later, earlier
}

func TestRecordsWithoutAllWritesOverTheRedisProtocolAreFound(t *testing.T) {
	t.Parallel()
	sent, recorded := sentAndRecorded()
	for i := range sent {
		sent[i].number, sent[i].version = 0, 0
	}
	more := append(slices.Clone(sent), newWrite(step{stepIncrement, 3}, 0, silent))
	require.Equal(t, world.RecordMissing, more.check(10, recorded, false, false).Class)
	sent[0].outcome = refused
	require.Equal(t, world.RecordSurplus, sent.check(10, recorded, false, false).Class)
}

// A promoted replica may answer with versions that the flush has to renumber.
func TestOnlyAWeakRedisMayRenumberAnsweredVersions(t *testing.T) {
	t.Parallel()
	sent, recorded := sentAndRecorded()
	sent[0].version = 3
	require.Equal(t, world.RecordWrong, sent.check(10, recorded, true, false).Class)
	require.Zero(t, sent.check(10, recorded, true, true))
}

func TestLatestRecordsAreReplayed(t *testing.T) {
	t.Parallel()
	require.Zero(t, checkLatest(10, world.Recorded{}), "a counter without a row")
	_, recorded := sentAndRecorded()
	require.Zero(t, checkLatest(10, recorded))
	recorded.Records = recorded.Records[1:]
	require.Equal(t, world.RecordGap, checkLatest(10, recorded).Class, "the first is missing")

	var full world.Recorded
	for version := range int64(latestRecords) {
		full.Records = append(full.Records, record(version+101, kindIncrement, 1, version+301, ""))
	}
	full.Row = world.State{Version: latestRecords + 100, Value: latestRecords + 300, Lineage: 7}
	require.Zero(t, checkLatest(0, full), "there are earlier ones")
	full.Row.Version++
	require.Equal(t, world.RecordGap, checkLatest(0, full).Class)
}
