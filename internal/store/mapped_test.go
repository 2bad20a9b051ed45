package store

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/mapping"
)

const mappingFile = `
mappings:
  - name: likes
    key: "post:{id:int}:likes"
    table: public.posts
    where: {id: "{id}"}
    set: likes
  - name: views
    key: "post:{id:int}:views"
    table: posts
    where: {id: "{id}"}
    set: views
    missing: dead
  - name: daily
    key: "views:{post:int}:{day:date}"
    table: stats.daily_views
    where: {post_id: "{post}", day: "{day}", kind: page}
    set: views
    missing: insert
    deleted: null
  - name: members
    key: "team/{team:uuid}/{role:text}"
    table: members
    where: {team: "{team}", role: "{role}"}
    set: n
    missing: insert
`

const mappedTables = `
CREATE SCHEMA stats;
CREATE TABLE public.posts (id integer PRIMARY KEY, likes integer NOT NULL DEFAULT 0, views bigint, CHECK (likes < 1000000));
CREATE TABLE stats.daily_views (post_id bigint, day date, kind varchar(10), views numeric, UNIQUE (post_id, day, kind));
CREATE TABLE public.members (team uuid, role text, n smallint, PRIMARY KEY (team, role));
INSERT INTO posts (id, likes) SELECT n, 0 FROM generate_series(1, 50) n`

// setupMapped returns a Store with the mappings above and their tables.
func setupMapped(t testing.TB) *Store {
	t.Helper()
	mappings, err := mapping.Parse([]byte(mappingFile))
	require.NoError(t, err)
	s := open(t, localtest.PostgresURL(t, migrateTemplate), Options{Mappings: mappings})
	exec(t, s, mappedTables)
	return s
}

// counted returns a row that a counter has after increments from start: its first flush.
func counted(key string, start, value, version int64) counter.Row {
	return counter.Row{Key: counter.Key(key), Value: value, Version: version, Lineage: 1, Start: start, Started: true}
}

// later returns a row of a counter that was flushed before, with the same lineage.
func later(key string, value, version int64) counter.Row {
	return counter.Row{Key: counter.Key(key), Value: value, Version: version, Lineage: 1, Base: 1, Start: 1, Started: true}
}

func upsertMapped(t testing.TB, s *Store, rows ...counter.Row) Upserted {
	t.Helper()
	upserted, err := s.UpsertUnlocked(t.Context(), rows)
	require.NoError(t, err)
	return upserted
}

// columns returns a query's rows as text, one a line.
func columns(t testing.TB, s *Store, query string) string {
	t.Helper()
	var lines []string
	require.NoError(t, s.db.SelectContext(t.Context(), &lines, "SELECT (x.*)::text FROM ("+query+") x"))
	return strings.Join(lines, "\n")
}

func TestFlushWritesMappedColumns(t *testing.T) {
	t.Parallel()
	s := setupMapped(t)
	const team = "team/9b2d5f1e-0000-4000-8000-00000000000a/owner"
	upserted := upsertMapped(t, s, counted("post:7:likes", 0, 3, 3), counted("post:7:views", 0, 9, 9), counted("post:10:likes", 0, -2, 1),
		counted("views:7:2026-11-29", 0, 5, 2), counted(team, 0, 4, 4), counted("other", 0, 1, 1))
	require.Empty(t, upserted.Broken)
	require.Equal(t, []MappedCount{{"members", 1, 0}, {"likes", 2, 0}, {"views", 1, 0}, {"daily", 1, 0}}, upserted.Mapped)
	require.Empty(t, upserted.Ahead)
	has(t, s, counter.Row{Key: "post:7:likes", Value: 3, Version: 3, Lineage: 1}, counter.Row{Key: "other", Value: 1, Version: 1, Lineage: 1})
	require.Equal(t, "(7,3,9)\n(10,-2,)", columns(t, s, "SELECT id, likes, views FROM posts WHERE likes <> 0 ORDER BY id"))
	require.Equal(t, "(7,2026-11-29,page,5)", columns(t, s, "SELECT post_id, day, kind, views FROM stats.daily_views"))
	require.Equal(t, "(9b2d5f1e-0000-4000-8000-00000000000a,owner,4)", columns(t, s, "SELECT team, role, n FROM public.members"))
}

func TestRepeatedAndLateFlushesDoNotTouchColumns(t *testing.T) {
	t.Parallel()
	s := setupMapped(t)
	upsertMapped(t, s, later("post:1:likes", 5, 5), later("post:2:likes", 1, 2))
	exec(t, s, "UPDATE posts SET likes = 77 WHERE id = 1") // shows whether the column is written again
	upserted := upsertMapped(t, s, later("post:1:likes", 5, 5), later("post:2:likes", 2, 3))
	require.Equal(t, []MappedCount{{"likes", 1, 0}}, upserted.Mapped)
	upsertMapped(t, s, later("post:1:likes", 3, 3), later("post:2:likes", 1, 2))
	require.Equal(t, "(1,77)\n(2,2)", columns(t, s, "SELECT id, likes FROM posts WHERE id < 3 ORDER BY id"))
}

func TestDeletesReachColumns(t *testing.T) {
	t.Parallel()
	s := setupMapped(t)
	upsertMapped(t, s, counted("post:1:likes", 0, 5, 5), counted("views:1:2026-11-29", 0, 5, 5))
	upserted := upsertMapped(t, s, tombstone("post:1:likes", 6), tombstone("views:1:2026-11-29", 6), tombstone("views:2:2026-11-29", 6),
		tombstone("post:99:views", 1))
	require.Empty(t, upserted.Refused, "a tombstone needs no row")
	require.Equal(t, "(1,0)", columns(t, s, "SELECT id, likes FROM posts WHERE id = 1"))
	require.Equal(t, "(1,)", columns(t, s, "SELECT post_id, views FROM stats.daily_views"))
}

func TestMissingRows(t *testing.T) {
	t.Parallel()
	s := setupMapped(t)
	upserted := upsertMapped(t, s, counted("post:99:likes", 0, 5, 5), counted("post:99:views", 0, 5, 5), counted("post:1:views", 0, 2, 2))
	require.Equal(t, []MappedCount{{"likes", 0, 1}, {"views", 1, 0}}, upserted.Mapped)
	require.Len(t, upserted.Refused, 1)
	require.Equal(t, counter.Key("post:99:views"), upserted.Refused[0].Row.Key)
	require.ErrorIs(t, upserted.Refused[0].Err, ErrNoRow)
	require.ErrorContains(t, upserted.Refused[0].Err, "mapping views: ")
	require.Equal(t, "(post:1:views)\n(post:99:likes)", columns(t, s, "SELECT key FROM counters ORDER BY key"))
}

func TestFirstFlushFindsAChangedColumn(t *testing.T) {
	t.Parallel()
	s := setupMapped(t)
	exec(t, s, "UPDATE posts SET likes = 1234 WHERE id IN (1, 2)")
	first := []counter.Row{counted("post:1:likes", 0, 1, 1), counted("post:2:likes", 1234, 1235, 1), counted("post:3:likes", 0, 1, 1)}
	upserted := upsertMapped(t, s, first...)
	require.Equal(t, []counter.Row{{Key: "post:1:likes", Value: 1234}}, upserted.Ahead)
	require.Equal(t, "(1,1234)\n(2,1235)\n(3,1)", columns(t, s, "SELECT id, likes FROM posts WHERE likes <> 0 ORDER BY id"))
	require.Equal(t, "(post:2:likes)\n(post:3:likes)", columns(t, s, "SELECT key FROM counters ORDER BY key"))

	set := row("post:1:likes", 7, 1) // a value that was set replaces whatever the column has
	set.Lineage = 1
	require.Empty(t, upsertMapped(t, s, set).Ahead)
	require.Equal(t, "(7)", columns(t, s, "SELECT likes FROM posts WHERE id = 1"))
}

// A lineage that begins without a row stays the same while the counter is dirty: a worker died before its commit, or writes go on.
func TestALineageIsFlushedAgainOverItsOwnColumn(t *testing.T) {
	t.Parallel()
	s := setupMapped(t)
	exec(t, s, "UPDATE posts SET likes = 10 WHERE id = 1")
	for value := int64(11); value < 14; value++ {
		upserted := upsertMapped(t, s, counted("post:1:likes", 10, value, value-10))
		require.Empty(t, upserted.Ahead)
		require.Equal(t, []MappedCount{{"likes", 1, 0}}, upserted.Mapped)
		require.Equal(t, fmt.Sprintf("(%d)", value), columns(t, s, "SELECT likes FROM posts WHERE id = 1"))
	}
	exec(t, s, "INSERT INTO counters (key, value, version, updated_at) VALUES ('post:2:likes', 7, 0, now())") // an import
	exec(t, s, "UPDATE posts SET likes = 7 WHERE id = 2")
	ahead := []counter.Row{{Key: "post:2:likes", Value: 7}}
	require.Equal(t, ahead, upsertMapped(t, s, counted("post:2:likes", 0, 1, 1)).Ahead, "its api ran without the mapping")
	require.Empty(t, upsertMapped(t, s, counted("post:2:likes", 7, 8, 1)).Ahead)
	require.Equal(t, "(8)", columns(t, s, "SELECT likes FROM posts WHERE id = 2"))
}

// Several workers flush states of the same first lineages at the same time, and no counter counts as one that found a changed column.
func TestFirstFlushesOnSeveralWorkers(t *testing.T) {
	t.Parallel()
	s := setupMapped(t)
	const workers, keys = 6, 20
	for round := range 10 {
		var group errgroup.Group
		for worker := range workers {
			group.Go(func() error {
				rows := make([]counter.Row, 0, keys)
				for key := range keys {
					rows = append(rows, counted(fmt.Sprintf("views:%d:%04d-01-01", key, round+1), 0, int64(worker+1), int64(worker+1)))
				}
				upserted, err := s.UpsertUnlocked(t.Context(), rows)
				for _, row := range upserted.Ahead {
					if row.Version == 0 {
						return fmt.Errorf("%+v", row)
					}
				}
				if class := Classify(err); class == Contended || IsLocked(err) {
					return nil
				}
				return err
			})
		}
		require.NoError(t, group.Wait())
	}
	require.Equal(t, "(0)", columns(t, s, `SELECT count(*) FROM counters c FULL JOIN stats.daily_views v
		ON c.key = 'views:' || v.post_id || ':' || to_char(v.day, 'YYYY-MM-DD') WHERE c.value IS DISTINCT FROM v.views`))
	upserted := upsertMapped(t, s, counted("views:0:0001-01-01", 0, 100, 100))
	require.Empty(t, upserted.Ahead)
}

func TestARefusedColumnNamesItsMappingAndWritesNothing(t *testing.T) {
	t.Parallel()
	s := setupMapped(t)
	for _, rows := range [][]counter.Row{
		{counted("post:1:likes", 0, 1_000_000, 1), counted("x", 0, 1, 1)}, // the CHECK
		{counted("post:1:likes", 0, 3_000_000_000, 1), counted("x", 0, 1, 1)},
	} {
		_, err := s.UpsertUnlocked(t.Context(), rows)
		require.Equal(t, Refused, Classify(err), err)
		require.ErrorContains(t, err, "mapping likes: ")
		require.Empty(t, columns(t, s, "SELECT key FROM counters"))
		require.True(t, s.Up())
	}
}

func TestATriggerThatKeepsARowFromBeingWrittenRefusesItAlone(t *testing.T) {
	t.Parallel()
	s := setupMapped(t)
	exec(t, s, `CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF NEW.id = 3 THEN RETURN NULL; END IF; RETURN NEW; END';
		CREATE TRIGGER keep BEFORE UPDATE ON posts FOR EACH ROW EXECUTE FUNCTION keep()`)
	upserted := upsertMapped(t, s, counted("post:2:likes", 0, 2, 1), counted("post:3:likes", 0, 3, 1), counted("post:3:views", 0, 3, 1))
	require.Len(t, upserted.Refused, 2)
	for _, r := range upserted.Refused {
		require.ErrorIs(t, r.Err, ErrNotStored)
	}
	require.Equal(t, "(post:2:likes)", columns(t, s, "SELECT key FROM counters"))
}

func TestABrokenMappingKeepsOnlyItsOwnCounters(t *testing.T) {
	t.Parallel()
	s := setupMapped(t)
	exec(t, s, "ALTER TABLE posts DROP COLUMN likes")
	for range failuresToOpen + 1 {
		upserted := upsertMapped(t, s, counted("post:1:likes", 0, 2, 1), counted("post:1:views", 0, 3, 1), counted("x", 0, 1, 1))
		require.Len(t, upserted.Broken, 1)
		require.Equal(t, "likes", upserted.Broken[0].Mapping)
		require.Equal(t, []counter.Key{"post:1:likes"}, upserted.Broken[0].Keys)
		require.ErrorContains(t, upserted.Broken[0].Err, "column t.likes does not exist")

		rows, err := s.Read(t.Context(), []counter.Key{"post:1:likes", "post:1:views", "cold"})
		require.Equal(t, map[counter.Key]bool{"post:1:likes": true}, Unread(err))
		require.Len(t, rows, 1)
	}
	require.True(t, s.Up())
	require.Equal(t, "(post:1:views)\n(x)", columns(t, s, "SELECT key FROM counters ORDER BY key"))
}

func TestLockedMappedRowsAreReturned(t *testing.T) {
	t.Parallel()
	s := setupMapped(t)
	rollback := lockingClient(t, s, "SELECT FROM posts WHERE id = 2 FOR UPDATE")
	for version := range int64(3) { // from the second call on, the Store expects locks
		upserted := upsertMapped(t, s, later("post:1:likes", 1, version+2), later("post:2:likes", 2, version+2), later("x", 3, version+2))
		require.Equal(t, []counter.Key{"post:2:likes"}, upserted.Locked)
		require.Equal(t, fmt.Sprintf("(post:1:likes,%d)\n(x,%[1]d)", version+2),
			columns(t, s, "SELECT key, version FROM counters ORDER BY key"))
	}
	rollback()
	require.Empty(t, upsertMapped(t, s, later("post:2:likes", 2, 2)).Locked)
	require.Equal(t, "(1,1)\n(2,2)", columns(t, s, "SELECT id, likes FROM posts WHERE likes <> 0 ORDER BY id"))
}

func TestALockedMappedTableHoldsOnlyItsOwnCounters(t *testing.T) {
	t.Parallel()
	s := setupMapped(t)
	lockingClient(t, s, "LOCK TABLE posts IN ACCESS EXCLUSIVE MODE")
	upserted := upsertMapped(t, s, later("post:1:likes", 1, 2), later("post:1:views", 1, 2), later("x", 3, 2), later("views:1:2026-11-29", 3, 2))
	require.ElementsMatch(t, []counter.Key{"post:1:likes", "post:1:views"}, upserted.Locked)
	require.Equal(t, "(views:1:2026-11-29)\n(x)", columns(t, s, "SELECT key FROM counters ORDER BY key"))
	require.True(t, s.Up())
}

func TestARowThatAnotherTransactionInsertsMeanwhile(t *testing.T) {
	t.Parallel()
	s := setupMapped(t)
	rollback := lockingClient(t, s, "INSERT INTO stats.daily_views VALUES (1, '2026-11-29', 'page', 7)")
	rows := []counter.Row{counted("views:1:2026-11-29", 0, 3, 2), counted("views:2:2026-11-29", 0, 3, 2), counted("x", 0, 3, 2)}
	upserted := upsertMapped(t, s, rows...)
	require.Equal(t, []counter.Key{"views:1:2026-11-29"}, upserted.Locked)
	require.Equal(t, "(views:2:2026-11-29)\n(x)", columns(t, s, "SELECT key FROM counters ORDER BY key"))
	rollback()
	require.Empty(t, upsertMapped(t, s, rows...).Locked)
	require.Equal(t, "(1,3)\n(2,3)", columns(t, s, "SELECT post_id, views FROM stats.daily_views ORDER BY 1"))
}

func TestReadAdoptsColumns(t *testing.T) {
	t.Parallel()
	s := setupMapped(t)
	exec(t, s, `UPDATE posts SET likes = 1234, views = NULL WHERE id = 1;
		INSERT INTO stats.daily_views VALUES (1, '2026-11-29', 'page', 12.5), (2, '2026-11-29', 'page', 1e30), (3, '2026-11-29', 'other', 5)`)
	upsertMapped(t, s, later("post:2:likes", 9, 9))
	rows, err := s.Read(t.Context(), []counter.Key{
		"post:1:likes", "post:1:views", "post:2:likes", "post:3:likes", "views:1:2026-11-29", "views:2:2026-11-29", "views:3:2026-11-29", "x",
	})
	require.NoError(t, err)
	require.Equal(t, map[counter.Key]counter.Row{
		"post:1:likes":       row("post:1:likes", 1234, 0),
		"post:2:likes":       {Key: "post:2:likes", Value: 9, Version: 9, Lineage: 1},
		"views:1:2026-11-29": row("views:1:2026-11-29", 13, 0),
		"views:2:2026-11-29": row("views:2:2026-11-29", 9223372036854775807, 0),
	}, rows)
}

// TestMappedStatementsUseTheUniqueIndex: a hash join would read the user's whole table for each batch.
func TestMappedStatementsUseTheUniqueIndex(t *testing.T) {
	t.Parallel()
	s := setupMapped(t)
	exec(t, s, "INSERT INTO posts (id) SELECT n FROM generate_series(51, 20000) n; ANALYZE posts")
	var batch []counter.Row
	for n := range 1000 {
		batch = append(batch, later(fmt.Sprintf("post:%d:likes", n*20), 1, 2))
	}
	part := s.mapped(batch)[0]
	for name, statement := range map[string]string{
		"update": part.sql.update, "absent": part.sql.absent, "judge": part.sql.judge, "held": part.sql.held, "adopt": part.sql.adopt,
	} {
		var plan []string
		require.NoError(t, s.db.SelectContext(t.Context(), &plan, "EXPLAIN "+statement, part.args(part.rows)...))
		text := strings.Join(plan, "\n")
		require.NotContains(t, text, "Seq Scan", "%s:\n%s", name, text)
		require.Regexp(t, `Index (Only )?Scan using posts_pkey`, text, "%s", name)
	}
}

func TestCountersStartFromRoundedColumns(t *testing.T) {
	t.Parallel()
	s := setupMapped(t)
	exec(t, s, `INSERT INTO stats.daily_views VALUES (1, '2026-01-31', 'page', 5.5), (2, '2026-01-31', 'page', 1e20),
		(3, '2026-01-31', 'page', 0.4)`)
	read, err := s.Read(t.Context(), []counter.Key{"views:1:2026-01-31", "views:2:2026-01-31", "views:3:2026-01-31"})
	require.NoError(t, err)
	require.Equal(t, map[counter.Key]counter.Row{
		"views:1:2026-01-31": {Key: "views:1:2026-01-31", Value: 6},
		"views:2:2026-01-31": {Key: "views:2:2026-01-31", Value: math.MaxInt64},
	}, read)

	upserted := upsertMapped(t, s, counted("views:1:2026-01-31", 6, 7, 1), counted("views:2:2026-01-31", math.MaxInt64, math.MaxInt64-1, 1),
		counted("views:3:2026-01-31", 0, 1, 1))
	require.Empty(t, upserted.Refused)
	require.Empty(t, upserted.Ahead)
	require.Equal(t, "(7)\n(9223372036854775806)\n(1)", columns(t, s, "SELECT views FROM stats.daily_views ORDER BY post_id"))
}

func TestNumericColumnsMayBeNoNumbers(t *testing.T) {
	t.Parallel()
	s := setupMapped(t)
	exec(t, s, `INSERT INTO stats.daily_views VALUES (1, '2026-01-31', 'page', 'NaN'), (2, '2026-01-31', 'page', 'Infinity'),
		(3, '2026-01-31', 'page', '-Infinity')`)
	read, err := s.Read(t.Context(), []counter.Key{"views:1:2026-01-31", "views:2:2026-01-31", "views:3:2026-01-31"})
	require.NoError(t, err)
	require.Equal(t, map[counter.Key]counter.Row{ // NaN is larger than all numbers
		"views:1:2026-01-31": {Key: "views:1:2026-01-31", Value: math.MaxInt64},
		"views:2:2026-01-31": {Key: "views:2:2026-01-31", Value: math.MaxInt64},
		"views:3:2026-01-31": {Key: "views:3:2026-01-31", Value: math.MinInt64},
	}, read)
	upserted := upsertMapped(t, s, counted("views:1:2026-01-31", math.MaxInt64, 5, 1), counted("views:2:2026-01-31", 0, 1, 1),
		counted("views:3:2026-01-31", math.MinInt64, math.MinInt64+1, 1))
	require.Equal(t, []counter.Row{{Key: "views:2:2026-01-31", Value: math.MaxInt64}}, upserted.Ahead)
	require.Equal(t, "(5)\n(Infinity)\n(-9223372036854775807)", columns(t, s, "SELECT views FROM stats.daily_views ORDER BY post_id"))
}
