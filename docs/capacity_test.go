package docs

import (
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var writeTable = flag.Bool("write", false, "write the tables of docs/capacity.md instead of comparing them")

// constant is a cost that was measured. The tables of docs/capacity.md are computed from these.
type constant struct {
	value        float64
	unit, source string
}

var (
	cleanKey  = constant{123, "bytes of Redis for a clean key", "[performance](performance.md#results)"}
	dirtyKey  = constant{203, "bytes of Redis for a dirty key", "[performance](performance.md#results)"}
	tableRow  = constant{245, "bytes of Postgres for a row, with its index", "below"}
	walRow    = constant{226, "bytes of WAL for a flushed row", "below"}
	redisOp   = constant{3.36, "µs of Redis for an increment, one hot key", "[performance](performance.md#results)"}
	redisRow  = constant{15.8, "µs of Redis for a flushed row, small batches", "uniform minus hot, for each row"}
	redisBulk = constant{3.1, "µs of Redis for a flushed row, a drain of 1,000,000", "23 % of two cores at 146,674 rows/s"}
	pgRow     = constant{18.1, "µs of Postgres for a flushed row, small batches", "uniform, for each row"}
	pgBulk    = constant{7.8, "µs of Postgres for a flushed row, a drain of 1,000,000", "57 % of two cores at 146,674 rows/s"}
	workerRow = constant{10.7, "µs of workers for a flushed row, small batches", "uniform, for each row"}
	apiOp     = constant{38.5, "µs of the api for an increment in a request of its own", "[performance](performance.md#results)"}

	constants = []constant{
		cleanKey, dirtyKey, tableRow, walRow, redisOp, redisRow, redisBulk, pgRow, pgBulk, workerRow, apiOp,
	}
)

// dirtied returns how many of n keys get at least one of the writes, which are spread evenly.
func dirtied(n, writes float64) float64 { return -n * math.Expm1(-writes/n) }

// need is what keys and writes a second need.
type need struct {
	keys, writes float64

	rows          float64 // flushed a second
	redis, outage float64 // bytes: all keys clean, and what an outage of Postgres of 10 minutes adds
	table         float64 // bytes
	wal           float64 // bytes a second

	redisLow, redisHigh, pgLow, pgHigh, worker, api float64 // cores
}

func needOf(keys, writes float64) need {
	n := need{keys: keys, writes: writes, rows: dirtied(keys, writes)}
	n.redis, n.table = keys*cleanKey.value, keys*tableRow.value
	n.outage = dirtied(keys, 600*writes) * (dirtyKey.value - cleanKey.value)
	n.wal = n.rows * walRow.value
	n.redisLow = (writes*redisOp.value + n.rows*redisBulk.value) / 1e6
	n.redisHigh = (writes*redisOp.value + n.rows*redisRow.value) / 1e6
	n.pgLow, n.pgHigh = n.rows*pgBulk.value/1e6, n.rows*pgRow.value/1e6
	n.worker, n.api = n.rows*workerRow.value/1e6, writes*apiOp.value/1e6
	return n
}

func (n need) String() string {
	return fmt.Sprintf("| %s | %s | %s | %s | %s | %s | %s to %s | %s to %s | %s | %s | %s |", power(n.keys), power(n.writes), short(n.rows),
		size(n.redis), size(n.outage), size(n.table), cores(n.redisLow), cores(n.redisHigh), cores(n.pgLow), cores(n.pgHigh),
		cores(n.worker), cores(n.api), size(n.wal))
}

func power(x float64) string { return fmt.Sprintf("10^%d", int(math.Round(math.Log10(x)))) }

// short has a comma before each three digits.
func short(x float64) string {
	text := strconv.Itoa(int(math.Round(x)))
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func cores(x float64) string {
	if x < 1 {
		return fmt.Sprintf("%.2f", x)
	}
	return fmt.Sprintf("%.2g", x)
}

func size(bytes float64) string {
	for _, unit := range []string{"B", "kB", "MB", "GB"} {
		if bytes < 999.5 {
			return fmt.Sprintf("%.3g %s", bytes, unit)
		}
		bytes /= 1000
	}
	return fmt.Sprintf("%.3g TB", bytes)
}

func capacityTables() map[string]string {
	var costs, needs strings.Builder
	costs.WriteString("| | unit | from |\n| --- | --- | --- |\n")
	for _, c := range constants {
		fmt.Fprintf(&costs, "| %g | %s | %s |\n", c.value, c.unit, c.source)
	}
	needs.WriteString("| keys | writes/s | rows/s | Redis: clean keys | + outage of 10 min | table | Redis cores | Postgres cores | worker cores " +
		"| api cores | WAL a second |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for keys := 1e4; keys < 2e9; keys *= 10 {
		for writes := 1e3; writes < 2e6; writes *= 10 {
			needs.WriteString(needOf(keys, writes).String() + "\n")
		}
	}
	return map[string]string{"costs": costs.String(), "needs": needs.String()}
}

// The tables are computed from the constants, by `go test ./docs -run Capacity -write`.
func TestCapacityTablesFollowFromTheConstants(t *testing.T) {
	t.Parallel()
	path := filepath.Join(root, "docs", "capacity.md")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	document := string(text)
	for name, table := range capacityTables() {
		begin, end := "<!-- begin of "+name+" -->\n", "<!-- end of "+name+" -->"
		before, rest, found := strings.Cut(document, begin)
		require.True(t, found, name)
		inside, after, found := strings.Cut(rest, end)
		require.True(t, found, name)
		if *writeTable {
			document = before + begin + table + end + after
			continue
		}
		require.Equal(t, table, inside, "run: go test ./docs -run Capacity -write")
	}
	if *writeTable {
		require.NoError(t, os.WriteFile(path, []byte(document), 0o600))
	}
}

// The figures that both documents have are the same.
func TestCapacityConstantsAreThoseOfPerformance(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "docs", "performance.md"))
	require.NoError(t, err)
	for _, line := range []string{
		fmt.Sprintf("| Redis memory per clean key: a plain string | %g bytes ", cleanKey.value),
		fmt.Sprintf("| Redis memory per dirty key: a plain string | %g bytes ", dirtyKey.value),
		fmt.Sprintf("| redis | %.2f | ", redisOp.value),
		"| drain of 1,000,000 dirty keys, 2 workers, rows: pgbench's upsert | 146,674/s ",
		"Postgres takes 57 % of the two cores, Redis 23 % and the workers 19 %",
	} {
		require.Contains(t, string(text), line, "measure again, and change docs/capacity_test.go")
	}
	require.InDelta(t, 2*0.23/146_674*1e6, redisBulk.value, 0.05)
	require.InDelta(t, 2*0.57/146_674*1e6, pgBulk.value, 0.05)
	// Uniform increments: 19,979 writes/s on 100,000 keys, in CPU seconds for each million of increments.
	rows := dirtied(100_000, 19_979) / 19_979
	require.InDelta(t, (17.67-redisOp.value)/rows, redisRow.value, 0.05)
	require.InDelta(t, 16.39/rows, pgRow.value, 0.05)
	require.InDelta(t, 9.71/rows, workerRow.value, 0.05)
}

// The connections of a process are those of its code.
func TestCapacityConnectionsAreThoseOfTheProcesses(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "docs", "capacity.md"))
	require.NoError(t, err)
	for file, want := range map[string][2]string{
		"api":       {"Pools{Redis: 64, Postgres: 4,", "| api | 64 | 4 |"},
		"worker":    {"Redis: 2*c.WorkerConcurrency + 16, Postgres: c.WorkerConcurrency + 2,", "| worker | 24 | 6 |"},
		"scheduler": {"Pools{Redis: 10}", "| scheduler | 10 | 0 |"},
		"dashboard": {"Pools{Redis: 10, Postgres: 4}", "| dashboard | 10 | 4 |"},
	} {
		source, err := os.ReadFile(filepath.Join(root, "internal", "command", file+".go"))
		require.NoError(t, err)
		require.Contains(t, string(source), want[0])
		require.Contains(t, string(text), want[1])
	}
}
