package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/mapping"
)

// columnYAML has a mapping for each kind of column.
const columnYAML = `
mappings:
  - {name: likes, key: "post:{id:int}:likes", table: posts, where: {id: "{id}"}, set: likes}
  - {name: shares, key: "post:{id:int}:shares", table: posts, where: {id: "{id}"}, set: shares, deleted: null}
  - {name: views, key: "views:{post:int}:{day:date}", table: stats.daily, where: {post_id: "{post}", day: "{day}"}, set: views, missing: insert}
  - {name: tags, key: "tag:{tag:text}:{id:uuid}", table: "tags", where: {kind: blog, tag: "{tag}", id: "{id}"}, set: uses}
`

const columnTables = `
CREATE TABLE public.posts (id integer PRIMARY KEY, likes integer CHECK (likes < 1000000), shares numeric);
CREATE SCHEMA stats;
CREATE TABLE stats.daily (day date, post_id bigint NOT NULL, views bigint NOT NULL DEFAULT 0, UNIQUE (post_id, day));
CREATE TABLE public.tags (kind text, tag varchar(400) COLLATE "C", id uuid, uses smallint, PRIMARY KEY (kind, id));
CREATE INDEX ON public.tags (tag);`

// columnBundle is a Store on a database with the tables of columnYAML.
type columnBundle struct {
	*Store

	all *mapping.Mappings
}

func setupColumn(t testing.TB) *columnBundle {
	t.Helper()
	all, err := mapping.Parse([]byte(columnYAML))
	require.NoError(t, err)
	s := open(t, localtest.PostgresURL(t, migrateTemplate), Options{Mappings: all})
	exec(t, s, columnTables)
	return &columnBundle{Store: s, all: all}
}

func (b *columnBundle) column(t testing.TB, name string) *Column {
	t.Helper()
	c, err := b.Column(t.Context(), b.all.Named(name))
	require.NoError(t, err)
	return c
}

// targets are those of keys, which must all be of one mapping.
func (b *columnBundle) targets(t testing.TB, keys ...string) []Target {
	t.Helper()
	targets := make([]Target, len(keys))
	for i, key := range keys {
		m, values := b.all.Match(counter.Key(key))
		require.NotNil(t, m, key)
		targets[i] = Target{Key: counter.Key(key), Values: values}
	}
	return targets
}

// put writes only counters, as before there was a mapping.
func (b *columnBundle) put(t testing.TB, rows ...counter.Row) {
	t.Helper()
	for _, r := range rows {
		exec(t, b.Store, `INSERT INTO afterwrite.counters (key, value, version, deleted_at, updated_at)
			VALUES ($1, $2, $3, CASE WHEN $4::boolean THEN now() END, now())
			ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, version = EXCLUDED.version, deleted_at = EXCLUDED.deleted_at`,
			string(r.Key), r.Value, r.Version, r.Deleted)
	}
}

// begin starts a transaction on a connection of its own, and returns its rollback.
func (b *columnBundle) begin(t testing.TB, statement string) *sql.Tx {
	t.Helper()
	db, err := sql.Open("postgres", b.url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	tx, err := db.BeginTx(context.Background(), nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback() })
	_, err = tx.Exec(statement)
	require.NoError(t, err)
	return tx
}

// waiting waits until n statements of the database wait for a lock.
func (b *columnBundle) waiting(t testing.TB, n int) {
	t.Helper()
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		is := get[int](t, b.Store, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`)
		return is >= n, fmt.Sprintf("%d statements wait", is)
	})
}

func pages(t testing.TB, c *Column, limit int) []TableRow {
	t.Helper()
	var all []TableRow
	var after []string
	for {
		page, err := c.Page(t.Context(), after, limit)
		require.NoError(t, err)
		all = append(all, page...)
		if len(page) < limit {
			return all
		}
		after = page[len(page)-1].Cursor
	}
}

func TestPagesHaveEachRowOfTheTableOnce(t *testing.T) {
	t.Parallel()
	b := setupColumn(t)
	exec(t, b.Store, `INSERT INTO posts SELECT n, CASE n % 3 WHEN 0 THEN 0 WHEN 1 THEN n END FROM generate_series(-50, 50) n`)
	exec(t, b.Store, `INSERT INTO stats.daily (post_id, day, views) SELECT p, date '2024-02-20' + d, p FROM generate_series(1, 9) p, generate_series(0, 10) d`)
	exec(t, b.Store, `INSERT INTO stats.daily (post_id, day, views) VALUES (1, NULL, 5), (10, 'infinity', 1), (10, '0044-03-15 BC', 1), (10, '12000-01-01', 1)`)
	exec(t, b.Store, `INSERT INTO tags SELECT kind, repeat('x', n * 10), gen_random_uuid(), 1 FROM generate_series(0, 40) n, (VALUES ('blog'), ('shop')) k (kind)`)
	for name, want := range map[string]int{"likes": 101, "shares": 101, "views": 102, "tags": 41} {
		for _, limit := range []int{1, 7, 1000} {
			rows := pages(t, b.column(t, name), limit)
			require.Len(t, rows, want, "%s, %d at a time", name, limit)
			seen := map[string]bool{}
			for _, r := range rows {
				seen[fmt.Sprint(r.Values)] = true
			}
			require.Len(t, seen, want)
		}
	}
	likes := pages(t, b.column(t, "likes"), 7)
	require.Equal(t, TableRow{Values: []string{"-50"}, Cursor: []string{"-50"}, Counts: false}, likes[0])
	require.Equal(t, TableRow{Values: []string{"1"}, Cursor: []string{"1"}, Counts: true}, likes[51])
	require.Equal(t, []string{"1", "2024-02-20"}, pages(t, b.column(t, "views"), 7)[0].Values)
	_, err := b.column(t, "likes").Page(t.Context(), []string{"x"}, 1)
	require.Equal(t, Refused, Classify(err))
	_, err = b.column(t, "likes").Page(t.Context(), []string{"1", "2"}, 1)
	require.ErrorIs(t, err, ErrInvalid)
}

// A page must not read or sort the rest of the table.
func TestStatementsOnTheTableUseItsUniqueIndex(t *testing.T) {
	t.Parallel()
	b := setupColumn(t)
	exec(t, b.Store, `INSERT INTO stats.daily (post_id, day, views) SELECT p, date '2024-01-01' + d, 1 FROM generate_series(1, 1000) p, generate_series(0, 20) d`)
	exec(t, b.Store, `INSERT INTO afterwrite.counters (key, value, version, updated_at) SELECT 'views:' || post_id || ':' || day, 2, 1, now() FROM stats.daily`)
	exec(t, b.Store, `ANALYZE stats.daily`)
	exec(t, b.Store, `ANALYZE afterwrite.counters`)
	c := b.column(t, "views")
	require.InDelta(t, 21_000, c.Rows(), 1)
	estimate, err := c.Counters(t.Context())
	require.NoError(t, err)
	require.InDelta(t, 21_000, estimate, 2_000)
	var keys []string
	for p := range 500 {
		keys = append(keys, fmt.Sprintf("views:%d:2024-01-07", p+1))
	}
	targets := b.targets(t, keys...)
	for name, plan := range map[string]string{
		"page":     b.plan(t, c.page[1], 100, "500", "2024-01-05"),
		"import":   b.plan(t, c.adopt, c.args(targets)...),
		"backfill": b.plan(t, c.backfill, c.args(targets, "100")...),
		"held":     b.plan(t, c.held, c.args(targets)...),
		"compare":  b.plan(t, c.compare, c.args(targets)...),
		"lacking":  b.plan(t, c.lacking, c.args(targets)[0]),
	} {
		require.NotContains(t, plan, "Seq Scan", "%s\n%s", name, plan)
		if name == "page" {
			require.NotContains(t, plan, "Sort", plan)
		}
	}
}

func (b *columnBundle) plan(t testing.TB, statement string, args ...any) string {
	t.Helper()
	var lines []string
	require.NoError(t, b.db.SelectContext(t.Context(), &lines, "EXPLAIN "+statement, args...))
	return strings.Join(lines, "\n")
}

func TestImportTakesTheValueAtTheTimeAndLeavesCountersAlone(t *testing.T) {
	t.Parallel()
	b := setupColumn(t)
	exec(t, b.Store, `INSERT INTO posts VALUES (1, 10, 1.5), (2, 0, 0.4), (3, NULL, NULL), (4, 40, 1e30), (5, 50, -1e30), (6, 60, 'NaN'), (-7, 70, 7)`)
	upsertOnly := row("post:4:likes", 41, 9)
	b.put(t, upsertOnly)
	c := b.column(t, "likes")
	targets := b.targets(t, "post:9:likes", "post:4:likes", "post:3:likes", "post:2:likes", "post:1:likes", "post:-7:likes")
	imported, err := c.Import(t.Context(), targets)
	require.NoError(t, err)
	require.EqualValues(t, 2, imported)
	imported, err = c.Import(t.Context(), targets)
	require.NoError(t, err)
	require.Zero(t, imported)
	require.Equal(t, "post:-7:likes 70 0 0 0 t,post:1:likes 10 0 0 0 t,post:4:likes 41 9 0 0 t", get[string](t, b.Store,
		`SELECT string_agg(concat_ws(' ', key, value, version, lineage, base, deleted_at IS NULL), ',' ORDER BY key) FROM afterwrite.counters`))

	_, err = b.column(t, "shares").Import(t.Context(), b.targets(t, "post:1:shares", "post:2:shares", "post:4:shares", "post:5:shares"))
	require.NoError(t, err)
	has(t, b.Store, row("post:1:shares", 2, 0), row("post:4:shares", 1<<63-1, 0), row("post:5:shares", -1<<63, 0))
}

func TestImportWaitsForAFlushOfTheSameCounter(t *testing.T) {
	t.Parallel()
	b := setupColumn(t)
	exec(t, b.Store, `INSERT INTO posts VALUES (1, 10)`)
	flush := b.begin(t, `INSERT INTO afterwrite.counters (key, value, version, updated_at, lineage) VALUES ('post:1:likes', 11, 1, now(), 5);
		UPDATE posts SET likes = 11 WHERE id = 1`)
	done := make(chan error, 1)
	column, targets := b.column(t, "likes"), b.targets(t, "post:1:likes")
	go func() {
		imported, err := column.Import(t.Context(), targets)
		if err == nil && imported != 0 {
			err = fmt.Errorf("imported %d", imported)
		}
		done <- err
	}()
	b.waiting(t, 1)
	require.NoError(t, flush.Commit())
	require.NoError(t, <-done)
	require.EqualValues(t, 11, get[int64](t, b.Store, `SELECT value FROM afterwrite.counters`))
}

func TestBackfillWritesEachKindOfRow(t *testing.T) {
	t.Parallel()
	b := setupColumn(t)
	exec(t, b.Store, `INSERT INTO posts VALUES (1, 1, 1), (2, NULL, 2), (3, 3, 3), (4, 4, 4), (5, 5, NULL)`)
	b.put(t, row("post:1:likes", 10, 1), row("post:2:likes", 20, 1), row("post:3:likes", 3, 1), tombstone("post:4:likes", 2), tombstone("post:6:likes", 2),
		row("post:7:likes", 7, 1), tombstone("post:4:shares", 1), tombstone("post:5:shares", 1), row("post:1:shares", 1, 3))
	done, err := b.column(t, "likes").Backfill(t.Context(), b.targets(t, "post:8:likes", "post:7:likes", "post:6:likes", "post:4:likes", "post:3:likes",
		"post:2:likes", "post:1:likes"))
	require.NoError(t, err)
	require.Equal(t, Backfilled{Counters: 6, Updated: 3, Missing: []counter.Key{"post:7:likes"}}, done)
	done, err = b.column(t, "shares").Backfill(t.Context(), b.targets(t, "post:4:shares", "post:5:shares", "post:1:shares"))
	require.NoError(t, err)
	require.Equal(t, Backfilled{Counters: 3, Updated: 1}, done)
	require.Equal(t, "1 10 1,2 20 2,3 3 3,4 0 NULL,5 5 NULL", b.posts(t))

	exec(t, b.Store, `INSERT INTO stats.daily (post_id, day, views) VALUES (1, '2024-02-29', 1)`)
	b.put(t, row("views:1:2024-02-29", 5, 1), row("views:2:2024-02-29", 6, 1), tombstone("views:3:2024-02-29", 1))
	targets := b.targets(t, "views:2:2024-02-29", "views:1:2024-02-29", "views:3:2024-02-29")
	done, err = b.column(t, "views").Backfill(t.Context(), targets)
	require.NoError(t, err)
	require.Equal(t, Backfilled{Counters: 3, Updated: 1, Inserted: 1}, done)
	require.Equal(t, "1 5,2 6", get[string](t, b.Store, `SELECT string_agg(concat_ws(' ', post_id, views), ',' ORDER BY post_id) FROM stats.daily`))
	done, err = b.column(t, "views").Backfill(t.Context(), targets)
	require.NoError(t, err)
	require.Equal(t, Backfilled{Counters: 3}, done)
}

func (b *columnBundle) posts(t testing.TB) string {
	t.Helper()
	return get[string](t, b.Store, `SELECT string_agg(concat_ws(' ', id, coalesce(likes::text, 'NULL'), coalesce(shares::text, 'NULL')), ',' ORDER BY id) FROM posts`)
}

func TestRefusedAndLockedRowsCostOnlyThemselves(t *testing.T) {
	t.Parallel()
	b := setupColumn(t)
	exec(t, b.Store, `INSERT INTO posts SELECT n, 0 FROM generate_series(1, 1000) n`)
	exec(t, b.Store, `INSERT INTO afterwrite.counters (key, value, version, updated_at) SELECT 'post:' || n || ':likes', n, 1, now() FROM generate_series(1, 1000) n`)
	b.put(t, row("post:10:likes", 1_000_000, 2), row("post:500:likes", 1<<40, 2))
	b.begin(t, `SELECT FROM posts WHERE id = 77 FOR UPDATE`)
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprintf("post:%d:likes", i+1)
	}
	done, err := b.column(t, "likes").Backfill(t.Context(), b.targets(t, keys...))
	require.NoError(t, err)
	require.EqualValues(t, 997, done.Updated)
	require.Equal(t, []counter.Key{"post:77:likes"}, done.Locked)
	require.Len(t, done.Refused, 2)
	require.Equal(t, counter.Key("post:10:likes"), done.Refused[0].Key)
	require.ErrorContains(t, done.Refused[0].Err, "posts_likes_check")
	require.ErrorContains(t, done.Refused[1].Err, "out of range")
	require.Equal(t, 997, get[int](t, b.Store, `SELECT count(*) FROM posts WHERE likes = id`))
	require.True(t, b.Available(), "a locked row is no outage")
}

func TestLockedTableIsReportedInBoundedTime(t *testing.T) {
	t.Parallel()
	b := setupColumn(t)
	exec(t, b.Store, `INSERT INTO posts SELECT n, 0 FROM generate_series(1, 100) n`)
	exec(t, b.Store, `INSERT INTO afterwrite.counters (key, value, version, updated_at) SELECT 'post:' || n || ':likes', n, 1, now() FROM generate_series(1, 100) n`)
	b.begin(t, `SELECT FROM posts FOR UPDATE`)
	keys := make([]string, 100)
	for i := range keys {
		keys[i] = fmt.Sprintf("post:%d:likes", i+1)
	}
	began := time.Now()
	done, err := b.column(t, "likes").Backfill(t.Context(), b.targets(t, keys...))
	require.NoError(t, err)
	require.Len(t, done.Locked, 100)
	require.Less(t, time.Since(began), 20*time.Second)
}

// A flush has written counter and column, but not committed: backfill must wait for it, and take its value.
func TestBackfillWaitsForAFlushAndTakesItsValue(t *testing.T) {
	t.Parallel()
	b := setupColumn(t)
	exec(t, b.Store, `INSERT INTO posts VALUES (1, 1)`)
	b.put(t, row("post:1:likes", 5, 1))
	flush := b.begin(t, `UPDATE afterwrite.counters SET value = 6, version = 2; UPDATE posts SET likes = 6`)
	done := make(chan Backfilled, 1)
	column, targets := b.column(t, "likes"), b.targets(t, "post:1:likes")
	go func() {
		result, err := column.Backfill(context.Background(), targets)
		if err != nil {
			t.Error(err)
		}
		done <- result
	}()
	b.waiting(t, 1)
	require.NoError(t, flush.Commit())
	require.Equal(t, Backfilled{Counters: 1}, <-done, "the flush has written the column")
	require.Equal(t, "1 6 NULL", b.posts(t))
}

// The column never goes back, and in the end it has what counters has.
func TestBackfillAndFlushesOfTheSameCounters(t *testing.T) {
	t.Parallel()
	b := setupColumn(t)
	const counters = 50
	exec(t, b.Store, `INSERT INTO posts SELECT n, 0 FROM generate_series(1, 50) n`)
	exec(t, b.Store, `CREATE SEQUENCE went_back MINVALUE 0`) // counts even if the transaction is rolled back
	exec(t, b.Store, `CREATE FUNCTION never_back() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF NEW.likes < OLD.likes THEN PERFORM nextval('went_back'); END IF;
			PERFORM pg_sleep(0.002); -- widens the time between reading a counter and writing the next column
			RETURN NEW;
		END $$`)
	exec(t, b.Store, `CREATE TRIGGER never_back BEFORE UPDATE ON posts FOR EACH ROW EXECUTE FUNCTION never_back()`)
	keys := make([]string, counters)
	for i := range keys {
		keys[i] = fmt.Sprintf("post:%d:likes", i+1)
	}
	var flushers sync.WaitGroup
	for flusher := range 2 {
		flushers.Go(func() {
			for version := int64(1); version <= 60; version++ {
				from := (int(version)*7 + flusher*13) % (counters - 10)
				rows := make([]counter.Row, 10)
				for i := range rows {
					rows[i] = later(keys[from+i], version, version)
				}
				// Rows that the backfill has locked for long stay as they are: the next version is written.
				if _, err := b.UpsertUnlocked(t.Context(), rows); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	flushed := make(chan struct{})
	go func() { flushers.Wait(); close(flushed) }()
	column, targets := b.column(t, "likes"), b.targets(t, keys...)
	for running := true; running; {
		select {
		case <-flushed:
			running = false
		default:
		}
		done, err := column.Backfill(t.Context(), targets)
		require.NoError(t, err)
		require.Empty(t, done.Refused)
		if !running {
			require.Empty(t, done.Locked)
		}
		// Some rows differ from their counters, as after a restore.
		exec(t, b.Store, `ALTER TABLE posts DISABLE TRIGGER never_back; UPDATE posts SET likes = 0 WHERE id % 7 = 0; ALTER TABLE posts ENABLE TRIGGER never_back`)
	}
	done, err := column.Backfill(t.Context(), targets)
	require.NoError(t, err)
	require.Empty(t, done.Locked)
	require.Zero(t, get[int](t, b.Store, `SELECT last_value + is_called::int FROM went_back`), "a column went back")
	compared, err := column.Compare(t.Context(), targets)
	require.NoError(t, err)
	require.NotEmpty(t, compared)
	for _, c := range compared {
		require.True(t, c.Equal, "%+v", c)
	}
}

func TestCompareTellsTheClassesApart(t *testing.T) {
	t.Parallel()
	b := setupColumn(t)
	exec(t, b.Store, `INSERT INTO posts VALUES (1, 1, NULL), (2, 3, 0), (3, NULL, 1.5), (4, 0, NULL)`)
	b.put(t, row("post:1:likes", 1, 1), row("post:2:likes", 2, 1), row("post:3:likes", 0, 1), tombstone("post:4:likes", 1),
		row("post:5:likes", 5, 1), tombstone("post:6:likes", 1), tombstone("post:1:shares", 1), tombstone("post:2:shares", 1), row("post:3:shares", 2, 1))
	compared, err := b.column(t, "likes").Compare(t.Context(), b.targets(t, "post:1:likes", "post:2:likes", "post:3:likes", "post:4:likes",
		"post:5:likes", "post:6:likes", "post:7:likes"))
	require.NoError(t, err)
	require.Equal(t, []Compared{
		{Key: "post:1:likes", Value: 1, Found: true, Column: new("1"), Equal: true},
		{Key: "post:2:likes", Value: 2, Found: true, Column: new("3")},
		{Key: "post:3:likes", Value: 0, Found: true},
		{Key: "post:4:likes", Deleted: true, Found: true, Column: new("0"), Equal: true},
		{Key: "post:5:likes", Value: 5},
		{Key: "post:6:likes", Deleted: true, Equal: true},
	}, compared)
	compared, err = b.column(t, "shares").Compare(t.Context(), b.targets(t, "post:1:shares", "post:2:shares", "post:3:shares"))
	require.NoError(t, err)
	require.Equal(t, []Compared{
		{Key: "post:1:shares", Null: true, Deleted: true, Found: true, Equal: true},
		{Key: "post:2:shares", Null: true, Deleted: true, Found: true, Column: new("0")},
		{Key: "post:3:shares", Value: 2, Found: true, Column: new("1.5")},
	}, compared)
	lacking, err := b.column(t, "likes").Lacking(t.Context(), b.targets(t, "post:1:likes", "post:6:likes", "post:7:likes"))
	require.NoError(t, err)
	require.Equal(t, []counter.Key{"post:7:likes"}, lacking)
}

func TestTableWithoutAUniqueIndexIsRefused(t *testing.T) {
	t.Parallel()
	b := setupColumn(t)
	exec(t, b.Store, `ALTER TABLE posts DROP CONSTRAINT posts_pkey`)
	exec(t, b.Store, `CREATE UNIQUE INDEX ON posts (id) WHERE likes > 0`)
	exec(t, b.Store, `CREATE UNIQUE INDEX ON posts (id, shares)`)
	_, err := b.Column(t.Context(), b.all.Named("likes"))
	require.ErrorContains(t, err, "afterwrite mappings check")
}
