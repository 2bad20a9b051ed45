package world

import (
	"database/sql"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func number(n int64) sql.NullInt64 { return sql.NullInt64{Int64: n, Valid: true} }

// goodRecords are those of a counter that continues from 10. The row is what they lead to.
func goodRecords() (from State, records []Record, row State) {
	return State{Value: 10}, []Record{
		{Version: 1, Lineage: 7, Operation: operationIncrement, Amount: number(3), Value: number(13)},
		{Version: 2, Lineage: 7, Operation: operationDelete, Value: number(0)},
		{Version: 3, Lineage: 7, Operation: operationIncrement, Amount: number(-2), Value: number(-2)},
		{Version: 4, Lineage: 9, Operation: operationSet, Amount: number(40), Value: number(40)},
		{Version: 5, Lineage: 9, Operation: operationIncrement, Amount: number(1), Value: number(41)},
	}, State{Value: 41, Version: 5, Lineage: 9}
}

func TestReplayAcceptsRecordsThatLeadToTheRow(t *testing.T) {
	t.Parallel()
	from, records, row := goodRecords()
	require.Zero(t, Replay(from, records, row))
	row.Lineage++
	require.Zero(t, Replay(from, records, row), "a merge without writes gives the row a new lineage")
	require.Zero(t, Replay(State{Version: 2, Unknown: true}, records[2:], row), "the last records")
	require.Zero(t, Replay(from, records[:2], State{Version: 2, Lineage: 7, Deleted: true}), "deleted")
	require.Zero(t, Replay(State{Value: 10}, nil, State{Value: 10}), "a counter that was never written")
}

func TestReplayFindsEachKindOfBadRecord(t *testing.T) {
	t.Parallel()
	edit := func(i int, change func(*Record)) func([]Record) []Record {
		return func(records []Record) []Record { change(&records[i]); return records }
	}
	remove := func(from, to int) func([]Record) []Record {
		return func(records []Record) []Record { return slices.Delete(records, from, to) }
	}
	repeat := func(i int, lineage int64) func([]Record) []Record {
		return func(records []Record) []Record {
			again := records[i]
			again.Lineage = lineage
			return slices.Insert(records, i+1, again)
		}
	}
	for name, test := range map[string]struct {
		spoil func([]Record) []Record
		class RecordClass
	}{
		"no record":                         {remove(0, 5), RecordGap},
		"the first is missing":              {remove(0, 1), RecordGap},
		"one is missing":                    {remove(2, 3), RecordGap},
		"the last is missing":               {remove(4, 5), RecordGap},
		"one is there twice":                {repeat(2, 7), RecordTwice},
		"a version is in two lineages":      {repeat(2, 8), RecordTwice},
		"a wrong value":                     {edit(0, func(r *Record) { r.Value = number(14) }), RecordWrong},
		"a value that ignores a delete":     {edit(2, func(r *Record) { r.Value = number(11) }), RecordWrong},
		"a wrong value of a set":            {edit(3, func(r *Record) { r.Value = number(41) }), RecordWrong},
		"a deleted counter with a value":    {edit(1, func(r *Record) { r.Value = number(1) }), RecordWrong},
		"no value":                          {edit(0, func(r *Record) { r.Value.Valid = false }), RecordWrong},
		"a wrong amount":                    {edit(4, func(r *Record) { r.Amount = number(2) }), RecordWrong},
		"no amount":                         {edit(4, func(r *Record) { r.Amount.Valid = false }), RecordWrong},
		"a delete with an amount":           {edit(1, func(r *Record) { r.Amount = number(0) }), RecordWrong},
		"an operation that nobody sends":    {edit(4, func(r *Record) { r.Operation = "discard" }), RecordWrong},
		"another operation":                 {edit(4, func(r *Record) { r.Operation = operationSet }), RecordWrong},
		"a lineage that goes back":          {edit(4, func(r *Record) { r.Lineage = 8 }), RecordWrong},
		"a lineage newer than that of row":  {edit(4, func(r *Record) { r.Lineage = 10 }), RecordRow},
		"another value in the row":          {edit(4, func(r *Record) { r.Amount, r.Value = number(2), number(42) }), RecordRow},
		"a record that the row has not":     {func(r []Record) []Record { return append(r, Record{6, 9, operationSet, number(41), number(41), ""}) }, RecordRow},
		"the row is not deleted":            {edit(4, func(r *Record) { r.Operation, r.Amount, r.Value = operationDelete, sql.NullInt64{}, number(0) }), RecordRow},
		"the version does not begin with 1": {edit(0, func(r *Record) { r.Version = 0 }), RecordTwice},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, records, row := goodRecords()
			problem := Replay(from, test.spoil(records), row)
			require.Equal(t, test.class, problem.Class, problem.Detail)
		})
	}
}
