package worker

import (
	"database/sql"
	"fmt"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// The histories of the machine: two of its keys have one.

func isRecorded(key counter.Key) bool { return key != "b" }

// countedWrong returns why the number of records of a shard is wrong.
func countedWrong(seen map[counter.Key]observed, shardOf func(counter.Key) counter.Shard) string {
	has, counted := make(map[counter.Shard]int64), make(map[counter.Shard]int64)
	for key, o := range seen {
		has[shardOf(key)] += o.records
		counted[shardOf(key)] = o.shard.unflushed
	}
	for shard, n := range has {
		if counted[shard] != n {
			return fmt.Sprintf("shard %s has %d records, and counts %d", shard, n, counted[shard])
		}
	}
	return ""
}

// recordedRow is a row of the table operations.
type recordedRow struct {
	version       int64
	change        counter.Change
	amount, value sql.NullInt64
}

// compareRecords returns why the records of a key in Postgres are wrong. row is its row, and ops are the operations of it.
func (m *machine) compareRecords(row counter.Row, ops history) string {
	rows, err := m.db.Query(`SELECT version, operation, amount, value FROM operations WHERE key = $1 ORDER BY version, at`, string(row.Key))
	if err != nil {
		return err.Error()
	}
	defer rows.Close()
	var all []recordedRow
	for rows.Next() {
		var r recordedRow
		if err := rows.Scan(&r.version, &r.change, &r.amount, &r.value); err != nil {
			return err.Error()
		}
		all = append(all, r)
	}
	if rows.Err() != nil {
		return rows.Err().Error()
	}
	if problem := replayed(all, row); problem != "" {
		return fmt.Sprintf("%s: %v, and the row is %+v", problem, all, row)
	}
	return likeOperations(all, ops)
}

// replayed returns why the records do not lead to the row.
func replayed(all []recordedRow, row counter.Row) string {
	var before recordedRow
	for i, r := range all {
		want := r.amount.Int64
		switch {
		case r.change != counter.Rewound && r.version != before.version+1, r.version <= before.version:
			return fmt.Sprintf("version %d follows %d", r.version, before.version)
		case !r.value.Valid:
			return fmt.Sprintf("version %d has no value", r.version)
		case r.change == counter.Incremented && i == 0:
			want = r.value.Int64 // its base may be a column's value
		case r.change == counter.Incremented:
			want += before.value.Int64
		}
		if r.value.Int64 != want {
			return fmt.Sprintf("version %d has the value %d, not %d", r.version, r.value.Int64, want)
		}
		before = r
	}
	if len(all) == 0 || before.version != row.Version || before.value.Int64 != row.Value || before.amount.Valid == row.Deleted {
		return "it does not end with the row"
	}
	return ""
}

// likeOperations returns why the records since the last discard are not the operations since then.
func likeOperations(all []recordedRow, ops history) string {
	for i, r := range all {
		if r.change == counter.Rewound {
			all = all[i+1:]
			return likeOperations(all, ops)
		}
	}
	var since history
	for _, w := range ops {
		switch {
		case w.rewind > 0:
			since = nil
		case !w.start():
			since = append(since, w)
		}
	}
	if len(all) != len(since) {
		return fmt.Sprintf("%v are not %v", all, since)
	}
	for i, w := range since {
		if all[i].amount.Int64 != w.amount || all[i].change != changeOf(w.kind) {
			return fmt.Sprintf("%v are not %v: see number %d", all, since, i+1)
		}
	}
	return ""
}

func changeOf(kind counter.Kind) counter.Change {
	return map[counter.Kind]counter.Change{
		counter.Increment: counter.Incremented, counter.Set: counter.Assigned, counter.Delete: counter.Removed,
	}[kind]
}
