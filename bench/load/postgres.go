package load

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	_ "github.com/lib/pq" // the driver

	"github.com/afterwrite/afterwrite/internal/store"
)

const (
	// pgbenchBatches is how many batches are made beforehand. With 1,000 rows each they touch 181,000 of 1,000,000 keys.
	pgbenchBatches = 200
	pgbenchKeys    = 1_000_000

	// prepareBatches makes batches %[1]d of %[2]d keys, sorted as the flush sorts them, each key out of a range of its own
	// of %[3]d. The arrays are kept as they are, not compressed, so that reading one costs little.
	prepareBatches = `
CREATE TABLE bench_batch (id int PRIMARY KEY, keys text[] NOT NULL);
ALTER TABLE bench_batch ALTER COLUMN keys SET STORAGE EXTERNAL;
SELECT setseed(0.5);
INSERT INTO bench_batch
SELECT id, array_agg('pgbench:' || lpad((n * %[3]d + floor(random() * %[3]d))::bigint::text, 12, '0') ORDER BY n)
FROM generate_series(1, %[1]d) AS id, generate_series(0, %[2]d - 1) AS n
GROUP BY id;
ANALYZE bench_batch`

	dropBatches = `DROP TABLE IF EXISTS bench_batch`
)

// PGBench runs the flush's statement with batches of that many rows from so many connections, and returns rows per second, for
// Postgres alone. duration is whole seconds, rounded up.
//
// The statement is store.UpsertSQL in prepared mode, its parameters replaced by what makes the arrays in the server: keys from
// a table of batches, the other columns from array_fill, the version from the clock so that each batch is newer than the
// rows are. That takes the place of receiving and parsing the arrays, and costs less: reading the keys is some 2 % of a batch.
//
// It needs a database with the migrations, adds the table bench_batch and removes it, and leaves its rows in counters. It
// blocks until it is done, or ctx is.
func PGBench(ctx context.Context, dsn string, rows, clients int, duration time.Duration) (perSecond float64, err error) {
	perSecond, err = runPGBench(ctx, dsn, rows, clients, duration)
	if err != nil {
		return 0, fmt.Errorf("pgbench: %w", err)
	}
	return perSecond, nil
}

func runPGBench(ctx context.Context, dsn string, rows, clients int, duration time.Duration) (float64, error) {
	if rows < 1 || rows > store.MaxBatch || clients < 1 || duration <= 0 {
		return 0, fmt.Errorf("it takes 1 to %d rows, a client and a duration", store.MaxBatch)
	}
	program, err := findPGBench()
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
	if _, err := db.ExecContext(ctx, dropBatches+";"+fmt.Sprintf(prepareBatches, pgbenchBatches, rows, pgbenchKeys/rows)); err != nil {
		return 0, fmt.Errorf("make the batches: %w", err)
	}
	defer func() { _, _ = db.ExecContext(context.WithoutCancel(ctx), dropBatches) }()

	dir, err := os.MkdirTemp("", "afterwrite-pgbench-")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, "upsert.sql")
	if err := os.WriteFile(file, []byte(pgbenchScript(rows)), 0o600); err != nil {
		return 0, err
	}
	seconds := int64((duration + time.Second - 1) / time.Second)
	command := exec.CommandContext(ctx, program, //nolint:gosec // a program of the system
		"--no-vacuum", "--protocol=prepared", "--file="+file, "--client="+strconv.Itoa(clients), "--jobs="+strconv.Itoa(min(clients, 2)),
		"--time="+strconv.FormatInt(seconds, 10), "--random-seed=1", target)
	command.Env = append(os.Environ(), "PGPASSWORD="+password)
	out, err := output(command)
	if err != nil {
		return 0, err
	}
	batches, perSecond, err := parsePGBench(out)
	if err != nil {
		return 0, err
	}
	return perSecond * float64(rows), checkRows(ctx, db, rows, batches)
}

// withoutPassword takes the password out of a URL, which `ps` shows.
func withoutPassword(dsn string) (target, password string, err error) {
	u, err := url.Parse(dsn)
	if err != nil || u.User == nil {
		return "", "", errors.New("the database is a postgres:// URL with a user")
	}
	password, _ = u.User.Password()
	u.User = url.User(u.User.Username())
	return u.String(), password, nil
}

// pgbenchScript is one transaction.
func pgbenchScript(rows int) string {
	fill := func(value string) string { return fmt.Sprintf("array_fill(%s, ARRAY[%d])", value, rows) }
	clock := "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
	statement := strings.NewReplacer(
		"$1", "(SELECT keys FROM bench_batch WHERE id = :batch)",
		"$2", fill("1::bigint"), "$3", fill(clock), "$4", fill("false"), "$5", fill("1::bigint"), "$6", fill("0::bigint"),
	).Replace(store.UpsertSQL())
	return fmt.Sprintf("\\set batch random(1, %d)\n%s;\n", pgbenchBatches, strings.TrimSpace(statement))
}

// checkRows requires that the rows are there, and that all of a batch are of one version.
func checkRows(ctx context.Context, db *sql.DB, rows int, batches int64) error {
	var written, oldest int64
	err := db.QueryRowContext(ctx, `
SELECT count(*), count(*) FILTER (WHERE version < 1000000)
FROM counters WHERE key IN (SELECT unnest(keys) FROM bench_batch) AND lineage = 1`).Scan(&written, &oldest)
	switch {
	case err != nil:
		return fmt.Errorf("count the rows: %w", err)
	case batches < 1 || written < int64(rows) || oldest > 0:
		return fmt.Errorf("of %d batches of %d rows, %d rows are there", batches, rows, written)
	}
	return nil
}

var (
	pgbenchDone   = regexp.MustCompile(`(?m)^number of transactions actually processed: ([0-9]+)`)
	pgbenchFailed = regexp.MustCompile(`(?m)^number of failed transactions: ([0-9]+)`) // since PostgreSQL 15
	pgbenchRate   = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)
)

// parsePGBench reads how many transactions there were, and how many a second, connecting not counted.
func parsePGBench(out string) (done int64, perSecond float64, err error) {
	number, rate, failed := pgbenchDone.FindStringSubmatch(out), pgbenchRate.FindStringSubmatch(out), pgbenchFailed.FindStringSubmatch(out)
	if number == nil || rate == nil {
		return 0, 0, fmt.Errorf("its output cannot be read: %q", out)
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
