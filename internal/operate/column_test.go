package operate_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/mapping"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/internal/store"
)

const mappingsYAML = `
mappings:
  - {name: likes, key: "post:{id:int}:likes", table: posts, where: {id: "{id}"}, set: likes}
  - {name: views, key: "views:{post:int}:{day:date}", table: daily, where: {post: "{post}", day: "{day}"}, set: views, missing: insert}
  - {name: hits, key: "hits:{id:uuid}", table: documents, where: {id: "{id}"}, set: hits, deleted: null}
  - {name: tags, key: "tag:{tag:text}", table: tags, where: {kind: blog, tag: "{tag}"}, set: uses}
`

const mappedTables = `
CREATE TABLE public.posts (id integer PRIMARY KEY, likes integer CHECK (likes < 1000000));
CREATE TABLE public.daily (post bigint, day date, views bigint, PRIMARY KEY (post, day));
CREATE TABLE public.documents (id uuid PRIMARY KEY, hits numeric);
CREATE TABLE public.tags (kind text, tag text, uses integer, PRIMARY KEY (kind, tag));`

// columnBundle has a Postgres with mapped tables.
type columnBundle struct {
	store    *store.Store
	mappings *mapping.Mappings
	db       *sql.DB
}

func setupColumns(t testing.TB) *columnBundle {
	t.Helper()
	b := &columnBundle{}
	var err error
	b.mappings, err = mapping.Parse([]byte(mappingsYAML))
	require.NoError(t, err)
	url := localtest.PostgresURL(t, migrate)
	logger := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	b.store, err = store.Open(url, store.Options{Logger: logger, Mappings: b.mappings})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.store.Close()) })
	b.db, err = sql.Open("postgres", url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.db.Close()) })
	b.exec(t, mappedTables)
	return b
}

func (b *columnBundle) exec(t testing.TB, statement string, args ...any) {
	t.Helper()
	_, err := b.db.Exec(statement, args...)
	require.NoError(t, err)
}

func (b *columnBundle) number(t testing.TB, query string) (n int) {
	t.Helper()
	require.NoError(t, b.db.QueryRow(query).Scan(&n), query)
	return n
}

func (b *columnBundle) column(t testing.TB, name string) *operate.Column {
	t.Helper()
	c, err := operate.OpenColumn(t.Context(), b.store, b.mappings, name)
	require.NoError(t, err)
	return c
}

func (b *columnBundle) imports(t testing.TB, name string) operate.Imported {
	t.Helper()
	report, err := b.column(t, name).Import(t.Context(), operate.ImportOptions{Examples: 10})
	require.NoError(t, err)
	require.True(t, report.Complete)
	return report
}

func (b *columnBundle) verify(t testing.TB, name string, o operate.VerifyColumnOptions) operate.ColumnVerified {
	t.Helper()
	o.Examples = 10
	report, err := b.column(t, name).Verify(t.Context(), o)
	require.NoError(t, err)
	require.True(t, report.Complete)
	return report
}

func TestImportTakesEachKindOfKey(t *testing.T) {
	t.Parallel()
	b := setupColumns(t)
	b.exec(t, `INSERT INTO posts SELECT n, CASE n % 4 WHEN 0 THEN 0 WHEN 1 THEN n WHEN 2 THEN -n END FROM generate_series(1, 12000) n`)
	b.exec(t, `INSERT INTO daily SELECT p, date '2023-12-30' + d, 10 * p + d FROM generate_series(1, 1500) p, generate_series(0, 3) d`)
	b.exec(t, `INSERT INTO documents SELECT gen_random_uuid(), n + 0.5 FROM generate_series(1, 6000) n`)
	b.exec(t, `INSERT INTO tags SELECT kind, tag, 7 FROM (VALUES ('blog'), ('shop')) k (kind),
		(VALUES ('a'), ('a:b'), ('é'), (''), (repeat('x', 300)), (e'new\nline'), ('b')) t (tag)`)

	require.Equal(t, operate.Imported{
		Mapping: "likes", Complete: true, Rows: 12_000, Empty: 6_000, Imported: 6_000, After: `["12000"]`, Examples: []string{},
	}, b.imports(t, "likes"))
	require.Equal(t, 6_000, b.number(t, `SELECT count(*) FROM afterwrite.counters JOIN posts ON key = 'post:' || id || ':likes' AND value = likes AND version = 0`))
	require.Equal(t, operate.Imported{
		Mapping: "likes", Complete: true, Rows: 12_000, Empty: 6_000, Present: 6_000, After: `["12000"]`, Examples: []string{},
	}, b.imports(t, "likes"))

	require.EqualValues(t, 6_000, b.imports(t, "views").Imported)
	require.Equal(t, 6_000, b.number(t, `SELECT count(*) FROM afterwrite.counters JOIN daily ON key = 'views:' || post || ':' || day AND value = views`))
	require.EqualValues(t, 6_000, b.imports(t, "hits").Imported)
	require.Equal(t, 6_000, b.number(t, `SELECT count(*) FROM afterwrite.counters JOIN documents ON key = 'hits:' || id AND value = round(hits)`))

	report := b.imports(t, "tags")
	require.EqualValues(t, 3, report.Imported)
	require.EqualValues(t, 4, report.Keyless)
	require.Contains(t, report.Examples, `public.tags (kind = 'blog', tag = 'a:b')`)
	require.Equal(t, 3, b.number(t, `SELECT count(*) FROM afterwrite.counters WHERE key IN ('tag:a', 'tag:b', 'tag:é') AND value = 7`))
}

func TestImportGoesOnWhereItWasInterrupted(t *testing.T) {
	t.Parallel()
	b := setupColumns(t)
	b.exec(t, `INSERT INTO daily SELECT p, date '2024-01-01' + d, 1 FROM generate_series(1, 3000) p, generate_series(0, 3) d`)
	ctx, cancel := context.WithCancel(t.Context())
	column := b.column(t, "views")
	first, err := column.Import(ctx, operate.ImportOptions{Progress: func(operate.Imported) { cancel() }})
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, first.Complete)
	require.EqualValues(t, 5_000, first.Imported)
	require.Equal(t, `["1250","2024-01-04"]`, first.After)

	rest, err := column.Import(t.Context(), operate.ImportOptions{After: first.After})
	require.NoError(t, err)
	require.EqualValues(t, 7_000, rest.Rows)
	require.EqualValues(t, 7_000, rest.Imported)
	require.Equal(t, 12_000, b.number(t, `SELECT count(*) FROM afterwrite.counters`))

	for _, after := range []string{"x", "{}", "null", `["1"]`, `[]`, `["1","2024-02-30"]`, `["1","2"]`, `[1,2]`} {
		_, err := column.Import(t.Context(), operate.ImportOptions{After: after})
		require.ErrorContains(t, err, "is not a row of this mapping", after)
	}
}

// Each counter is written while it is imported. In the end counters and column have all increments.
func TestImportDuringFlushesIsExact(t *testing.T) {
	t.Parallel()
	b := setupColumns(t)
	const posts = 6_000
	b.exec(t, `INSERT INTO posts SELECT n, n FROM generate_series(1, $1) n`, posts)
	ctx, cancel := context.WithCancel(t.Context())
	var increments atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			n, err := b.increment(i * 37 % (posts - 20))
			if err != nil {
				t.Error(err)
				return
			}
			increments.Add(n)
		}
	}()
	for range 5 {
		b.imports(t, "likes")
	}
	cancel()
	<-done
	require.Positive(t, increments.Load())
	require.Equal(t, posts, b.number(t, `SELECT count(*) FROM afterwrite.counters JOIN posts ON key = 'post:' || id || ':likes' AND value = likes`))
	require.EqualValues(t, posts*(posts+1)/2+increments.Load(), b.number(t, `SELECT sum(likes) FROM posts`))
}

// increment counts 20 posts up by 1, as api and worker do, and returns how many of them were flushed: the others are locked.
func (b *columnBundle) increment(from int) (int64, error) {
	keys := make([]counter.Key, 20)
	for i := range keys {
		keys[i] = counter.Key(fmt.Sprintf("post:%d:likes", from+1+i))
	}
	found, err := b.store.Read(context.Background(), keys)
	if err != nil {
		return 0, err
	}
	rows := make([]counter.Row, len(keys))
	for i, key := range keys {
		has := found[key]
		rows[i] = counter.Row{
			Key: key, Value: has.Value + 1, Version: has.Version + 1, Lineage: 5, Base: has.Version, Start: has.Value, Started: true,
		}
	}
	upserted, err := b.store.UpsertUnlocked(context.Background(), rows)
	if err != nil {
		return 0, err
	}
	if n := len(upserted.Refused) + len(upserted.Broken); n > 0 {
		return 0, fmt.Errorf("%+v", upserted)
	}
	ahead := slices.DeleteFunc(upserted.Ahead, func(has counter.Row) bool {
		return slices.ContainsFunc(rows, func(r counter.Row) bool { return r.Stored() == has })
	})
	return int64(len(keys) - len(upserted.Locked) - len(ahead)), nil
}

func TestBackfillWritesAllCountersOfTheMapping(t *testing.T) {
	t.Parallel()
	b := setupColumns(t)
	b.exec(t, `INSERT INTO posts SELECT n, 0 FROM generate_series(1, 2500) n`)
	b.exec(t, `INSERT INTO afterwrite.counters (key, value, version, updated_at)
		SELECT 'post:' || n || ':likes', n, 1, now() FROM generate_series(1, 2600) n UNION ALL SELECT 'post:1:other', 5, 1, now()`)
	b.exec(t, `UPDATE afterwrite.counters SET value = 1000000 WHERE key = 'post:7:likes'`)
	report, err := b.column(t, "likes").Backfill(t.Context(), operate.BackfillOptions{Examples: 3})
	require.NoError(t, err)
	require.Len(t, report.Examples, 3)
	report.Examples = nil
	require.Equal(t, operate.Backfilled{
		Mapping: "likes", Complete: true, Counters: 2_599, Updated: 2_499, Missing: 100, Refused: 1,
	}, report)
	require.Equal(t, 2_499, b.number(t, `SELECT count(*) FROM posts WHERE likes = id`))
	b.exec(t, `ALTER TABLE posts DROP CONSTRAINT posts_likes_check`)
	report, err = b.column(t, "likes").Backfill(t.Context(), operate.BackfillOptions{})
	require.NoError(t, err)
	require.Equal(t, operate.Backfilled{
		Mapping: "likes", Complete: true, Counters: 2_600, Equal: 2_499, Updated: 1, Missing: 100, Examples: []operate.BackfillException{},
	}, report)
}

func TestBackfillOfALockedTableEnds(t *testing.T) {
	t.Parallel()
	b := setupColumns(t)
	b.exec(t, `INSERT INTO posts SELECT n, 0 FROM generate_series(1, 6000) n`)
	b.exec(t, `INSERT INTO afterwrite.counters (key, value, version, updated_at) SELECT 'post:' || n || ':likes', n, 1, now() FROM generate_series(1, 6000) n`)
	tx, err := b.db.Begin()
	require.NoError(t, err)
	defer func() { _ = tx.Rollback() }()
	_, err = tx.Exec(`SELECT FROM posts FOR UPDATE`)
	require.NoError(t, err)
	report, err := b.column(t, "likes").Backfill(t.Context(), operate.BackfillOptions{Examples: 1})
	require.ErrorContains(t, err, "another transaction locks")
	require.EqualValues(t, 3_000, report.Locked)
	require.Equal(t, operate.ProblemLocked, report.Examples[0].Problem)
}

func TestVerifyOfAColumnCountsClassesAndRepairs(t *testing.T) {
	t.Parallel()
	b := setupColumns(t)
	b.exec(t, `INSERT INTO posts SELECT n, n FROM generate_series(1, 3000) n`)
	b.imports(t, "likes")
	b.flushed(t)
	b.exec(t, `DELETE FROM posts WHERE id <= 10`)
	b.exec(t, `UPDATE posts SET likes = NULL WHERE id = 20`)
	b.exec(t, `UPDATE posts SET likes = 5 WHERE id = 30`)
	b.exec(t, `DELETE FROM afterwrite.counters WHERE key = 'post:40:likes'`)
	want := map[operate.ColumnClass]int64{operate.ColumnEqual: 2_987, operate.ColumnDiffers: 2, operate.ColumnMissing: 10}
	report := b.verify(t, "likes", operate.VerifyColumnOptions{})
	require.Equal(t, want, report.Counts)
	require.EqualValues(t, 2, report.Unrepaired, "a missing row is no difference for a mapping that ignores it")
	require.Len(t, report.Examples, 10)

	want[operate.ColumnUnimported] = 1
	report = b.verify(t, "likes", operate.VerifyColumnOptions{Unimported: true, Repair: true})
	require.Equal(t, want, report.Counts)
	require.EqualValues(t, 2_990, report.Rows)
	require.EqualValues(t, 2, report.Repaired)
	require.Zero(t, report.Unrepaired)
	require.Equal(t, 2_990, b.number(t, `SELECT count(*) FROM posts WHERE likes = id`))

	b.exec(t, `INSERT INTO daily VALUES (1, '2024-01-01', 1), (2, '2024-01-01', 2)`)
	b.imports(t, "views")
	b.flushed(t)
	b.exec(t, `DELETE FROM daily WHERE post = 1`)
	report = b.verify(t, "views", operate.VerifyColumnOptions{})
	require.EqualValues(t, 1, report.Unrepaired)
	require.Equal(t, []operate.ColumnDifference{{
		Key: "views:1:2024-01-01", Row: "public.daily (day = 2024-01-01, post = 1)", Class: operate.ColumnMissing, Counter: new("1"),
	}}, report.Examples)
	require.EqualValues(t, 1, b.verify(t, "views", operate.VerifyColumnOptions{Repair: true}).Repaired)
	require.Equal(t, 2, b.number(t, `SELECT count(*) FROM daily WHERE post = views`))
}

// flushed makes all counters look as after a flush.
func (b *columnBundle) flushed(t testing.TB) {
	t.Helper()
	b.exec(t, `UPDATE afterwrite.counters SET version = 1 WHERE version = 0`)
}

// Until an imported counter is flushed, others may still write the column: their writes must not be lost.
func TestColumnLeadsUntilAnImportedCounterIsFlushed(t *testing.T) {
	t.Parallel()
	b := setupColumns(t)
	b.exec(t, `INSERT INTO posts VALUES (1, 10), (2, 20), (3, 30), (4, 40)`)
	b.imports(t, "likes")
	b.exec(t, `UPDATE posts SET likes = likes + 5 WHERE id <= 2`)
	b.exec(t, `DELETE FROM posts WHERE id = 4`)
	report := b.verify(t, "likes", operate.VerifyColumnOptions{Repair: true})
	require.Equal(t, map[operate.ColumnClass]int64{operate.ColumnEqual: 1, operate.ColumnStale: 3}, report.Counts)
	require.Zero(t, report.Repaired+report.Unrepaired)
	_, err := b.column(t, "likes").Backfill(t.Context(), operate.BackfillOptions{})
	require.NoError(t, err)
	require.Equal(t, 15+25+30, b.number(t, `SELECT sum(likes) FROM posts`))

	imported := b.imports(t, "likes")
	require.EqualValues(t, 2, imported.Imported)
	require.EqualValues(t, 1, imported.Present)
	require.Equal(t, 2, b.number(t, `SELECT count(*) FROM afterwrite.counters WHERE value IN (15, 25) AND version = 0`))
}

func TestVerifyReportsWhatItCannotRepair(t *testing.T) {
	t.Parallel()
	b := setupColumns(t)
	b.exec(t, `INSERT INTO posts VALUES (1, 5)`)
	b.exec(t, `INSERT INTO afterwrite.counters (key, value, version, updated_at) VALUES ('post:1:likes', 1000000, 1, now())`)
	report := b.verify(t, "likes", operate.VerifyColumnOptions{Repair: true})
	require.EqualValues(t, 1, report.Unrepaired)
	require.False(t, report.Examples[0].Repaired)
	require.Len(t, report.Problems, 1)
	require.Equal(t, operate.ProblemRefused, report.Problems[0].Problem)
	require.Contains(t, report.Problems[0].Reason, "posts_likes_check")
}

// A flush writes counters and column in one transaction, so it never looks like a difference.
func TestFlushesAreNoDifferencesOfAColumn(t *testing.T) {
	t.Parallel()
	b := setupColumns(t)
	b.exec(t, `INSERT INTO posts SELECT n, 1 FROM generate_series(1, 2000) n`)
	b.imports(t, "likes")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			if _, err := b.increment(i * 37 % 1980); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for range 20 {
		report := b.verify(t, "likes", operate.VerifyColumnOptions{Repair: true})
		require.Zero(t, report.Repaired, "%+v", report.Examples)
		require.Zero(t, report.Unrepaired)
	}
	cancel()
	<-done
}

func TestUnknownMappingIsAnErrorThatNamesTheOthers(t *testing.T) {
	t.Parallel()
	b := setupColumns(t)
	_, err := operate.OpenColumn(t.Context(), b.store, b.mappings, "like")
	require.ErrorContains(t, err, `no mapping "like"`)
	require.ErrorContains(t, err, "it has likes, views")
	_, err = operate.OpenColumn(t.Context(), b.store, nil, "likes")
	require.ErrorContains(t, err, "no mapping")
}
