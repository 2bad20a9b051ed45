package load

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	_ "github.com/lib/pq" // the driver

	"github.com/afterwrite/afterwrite/internal/local"
)

const (
	// upsertBatches is the number of prepared batches of existing rows. With 1,000 rows each, they contain 181,000 of 1,000,000 keys.
	upsertBatches = 200
	upsertKeys    = 1_000_000

	// prepareUpserts creates %[1]d batches of %[2]d keys, sorted as in a flush. Each key of a batch is drawn from a range of its own
	// of %[3]d keys. The arrays are not compressed, so that reading one is cheap.
	prepareUpserts = createBatches + `
SELECT setseed(0.5);
INSERT INTO bench_batch
SELECT id, array_agg('pgbench:' || lpad((n * %[3]d + floor(random() * %[3]d))::bigint::text, 12, '0') ORDER BY n)
FROM generate_series(1, %[1]d) AS id, generate_series(0, %[2]d - 1) AS n
GROUP BY id;
ANALYZE bench_batch`

	// prepareInserts creates %[1]d batches of %[2]d random keys, sorted. The last digits are a running number, so all keys are
	// different.
	prepareInserts = createBatches + `
SELECT setseed(0.5);
INSERT INTO bench_batch
SELECT id, array_agg(key ORDER BY key COLLATE "C")
FROM generate_series(1, %[1]d) AS id, generate_series(1, %[2]d) AS n,
	lpad(((floor(random() * 1e12 / (%[1]d * %[2]d)) * %[1]d + id - 1) * %[2]d + n - 1)::bigint::text, 12, '0') AS digits,
	concat('pgbench:', digits) AS key
GROUP BY id;
ANALYZE bench_batch`

	createBatches = `
CREATE TABLE bench_batch (id int PRIMARY KEY, keys text[] NOT NULL);
ALTER TABLE bench_batch ALTER COLUMN keys SET STORAGE EXTERNAL;`

	dropBatches = `DROP TABLE IF EXISTS bench_batch`
)

// These were the statements of the flush when the goals were set. They stay as they are, so that results remain comparable.
const (
	insertSQL = `
INSERT INTO counters (key, value, version, deleted_at, updated_at, lineage, base)
SELECT key, value, version, CASE WHEN deleted THEN now() END, now(), lineage, base
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::boolean[], $5::bigint[], $6::bigint[])
	AS batch (key, value, version, deleted, lineage, base)`

	upsertSQL = insertSQL + `
ON CONFLICT (key) DO UPDATE
SET value = EXCLUDED.value, version = EXCLUDED.version, deleted_at = EXCLUDED.deleted_at, updated_at = EXCLUDED.updated_at,
	lineage = EXCLUDED.lineage, base = EXCLUDED.base
WHERE counters.version < CASE WHEN counters.lineage = EXCLUDED.lineage THEN EXCLUDED.version ELSE EXCLUDED.base + 1 END`
)

// PGBenchUpsert measures Postgres alone: it updates existing rows in batches with pgbench, from so many clients, and returns rows per
// second. It rounds duration up to whole seconds.
//
// It runs upsertSQL as a prepared statement. Expressions create the arrays in the server: the keys come from a table of batches, other
// columns from array_fill, and versions from the clock, so that each batch is newer than the rows. That costs less than receiving and
// parsing arrays: reading the keys takes about 2 % of the time of a batch.
//
// The database must have afterwrite's tables. PGBenchUpsert creates and drops the table bench_batch; the rows stay in counters.
func PGBenchUpsert(ctx context.Context, dsn string, rows, clients int, duration time.Duration) (perSecond float64, err error) {
	seconds := int64((duration + time.Second - 1) / time.Second)
	return pgbench(ctx, dsn, workload{
		statement: upsertSQL,
		prepare:   fmt.Sprintf(prepareUpserts, upsertBatches, rows, upsertKeys/rows), rows: rows, clients: clients, least: rows,
		choose: fmt.Sprintf("\\set batch random(1, %d)", upsertBatches), bound: "--time=" + strconv.FormatInt(seconds, 10),
	})
}

// PGBenchInsert inserts batches * rows new rows with random keys in the same way, with insertSQL, and returns rows per second. batches
// must be a multiple of clients. The table counters must not have rows of an earlier call.
func PGBenchInsert(ctx context.Context, dsn string, rows, clients, batches int) (perSecond float64, err error) {
	each := batches / clients
	return pgbench(ctx, dsn, workload{
		statement: insertSQL,
		prepare:   fmt.Sprintf(prepareInserts, batches, rows), rows: rows, clients: clients, least: each * clients * rows,
		// Each client counts its transactions: a variable keeps its value from one to the next.
		choose: fmt.Sprintf("\\set done :done + 1\n\\set batch :client_id * %d + :done", each),
		bound:  "--transactions=" + strconv.Itoa(each),
	})
}

// workload configures one run of pgbench.
type workload struct {
	statement string
	prepare   string // SQL that creates bench_batch
	choose    string // commands that set the variable batch
	bound     string // flag that limits the run
	rows      int    // number of rows in each batch
	clients   int
	least     int // minimum number of rows afterwards
}

// pgbench runs a workload and returns rows per second.
func pgbench(ctx context.Context, dsn string, w workload) (perSecond float64, err error) {
	defer wrap(&err, "pgbench")
	program, err := local.PostgresProgram(ctx, "pgbench")
	if err != nil {
		return 0, err
	}
	target, password, err := withoutPassword(dsn)
	if err != nil {
		return 0, err
	}
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		return 0, err
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, dropBatches+";"+w.prepare); err != nil {
		return 0, fmt.Errorf("create the batches: %w", err)
	}
	defer func() { _, _ = db.ExecContext(context.WithoutCancel(ctx), dropBatches) }()

	dir, err := os.MkdirTemp("", "afterwrite-pgbench-")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, "batch.sql")
	if err := os.WriteFile(file, []byte(w.script()), 0o600); err != nil {
		return 0, err
	}
	out, err := local.Program{Path: program, Env: append(os.Environ(), "PGPASSWORD="+password), Args: []string{
		"--no-vacuum", "--protocol=prepared", "--file=" + file, "--client=" + strconv.Itoa(w.clients),
		"--jobs=" + strconv.Itoa(min(w.clients, 2)), "--define=done=0", w.bound, "--random-seed=1", target,
	}}.Output(ctx)
	if err != nil {
		return 0, err
	}
	batches, perSecond, err := parsePGBench(out)
	if err != nil {
		return 0, err
	}
	return perSecond * float64(w.rows), checkRows(ctx, db, w, batches)
}

// withoutPassword splits a URL into one without the password, and the password. Arguments are visible to other users.
func withoutPassword(dsn string) (target, password string, err error) {
	u, err := url.Parse(dsn)
	if err != nil || u.User == nil {
		return "", "", errors.New("the database must be a postgres:// URL with a user")
	}
	password, _ = u.User.Password()
	u.User = url.User(u.User.Username())
	return u.String(), password, nil
}

// script returns the script of one transaction.
func (w workload) script() string {
	fill := func(value string) string { return fmt.Sprintf("array_fill(%s, ARRAY[%d])", value, w.rows) }
	clock := "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
	statement := strings.NewReplacer(
		"$1", "(SELECT keys FROM bench_batch WHERE id = :batch)",
		"$2", fill("1::bigint"), "$3", fill(clock), "$4", fill("false"), "$5", fill("1::bigint"), "$6", fill("0::bigint"),
	).Replace(w.statement)
	return fmt.Sprintf("%s\n%s;\n", w.choose, strings.TrimSpace(statement))
}

// checkRows returns an error unless enough rows exist, all with versions from the clock.
func checkRows(ctx context.Context, db *sql.DB, w workload, batches int64) error {
	var written, oldest int64
	err := db.QueryRowContext(ctx, `
SELECT count(*), count(*) FILTER (WHERE version < 1000000)
FROM counters WHERE key LIKE 'pgbench:%' AND lineage = 1`).Scan(&written, &oldest)
	switch {
	case err != nil:
		return fmt.Errorf("count the rows: %w", err)
	case batches < 1 || written < int64(w.least) || oldest > 0:
		return fmt.Errorf("%d batches of %d rows were written, but %d rows exist", batches, w.rows, written)
	}
	return nil
}

var (
	pgbenchDone   = regexp.MustCompile(`(?m)^number of transactions actually processed: ([0-9]+)`)
	pgbenchFailed = regexp.MustCompile(`(?m)^number of failed transactions: ([0-9]+)`) // since PostgreSQL 15
	pgbenchRate   = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)
)

// parsePGBench parses the number of transactions, and their rate without the time to connect.
func parsePGBench(out string) (done int64, perSecond float64, err error) {
	number, rate, failed := pgbenchDone.FindStringSubmatch(out), pgbenchRate.FindStringSubmatch(out), pgbenchFailed.FindStringSubmatch(out)
	if number == nil || rate == nil {
		return 0, 0, fmt.Errorf("cannot parse the output: %q", out)
	}
	if failed != nil && failed[1] != "0" {
		return 0, 0, fmt.Errorf("%s transactions failed", failed[1])
	}
	if done, err = strconv.ParseInt(number[1], 10, 64); err != nil {
		return 0, 0, err
	}
	perSecond, err = strconv.ParseFloat(rate[1], 64)
	return done, perSecond, err
}
