package store

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// empty returns the URL of an empty database, and a function that runs statements there. Its search_path is public, as in a database
// that was not prepared for tests.
func empty(t testing.TB) (address string, run func(statement string)) {
	t.Helper()
	address = localtest.PostgresURL(t, nil)
	parsed, err := url.Parse(address)
	require.NoError(t, err)
	db, err := sql.Open("postgres", address)
	require.NoError(t, err)
	defer db.Close()
	_, err = db.ExecContext(t.Context(), "ALTER DATABASE "+parsed.Path[1:]+" SET search_path = public")
	require.NoError(t, err)
	return address, func(statement string) {
		t.Helper()
		db, err := sql.Open("postgres", address)
		require.NoError(t, err)
		defer db.Close()
		_, err = db.ExecContext(context.WithoutCancel(t.Context()), statement)
		require.NoError(t, err, statement)
	}
}

// as returns address with another role, whose password is x.
func as(t testing.TB, address, role string) string {
	t.Helper()
	parsed, err := url.Parse(address)
	require.NoError(t, err)
	parsed.User = url.UserPassword(role, "x")
	return parsed.String()
}

// useAll uses the tables in every way that a process does.
func useAll(t testing.TB, s *Store) {
	t.Helper()
	upsert(t, s, row("k", 1, 1))
	upserted, err := s.UpsertUnlocked(t.Context(), []counter.Row{row("k", 2, 2), row("l", 1, 1)})
	ahead, locked := upserted.Ahead, upserted.Locked
	require.NoError(t, err)
	require.Empty(t, ahead)
	require.Empty(t, locked)
	s.expectLocks()
	_, err = s.UpsertUnlocked(t.Context(), []counter.Row{row("k", 3, 3), tombstone("l", 2)})
	require.NoError(t, err)
	has(t, s, row("k", 3, 3), tombstone("l", 2))
	removed, _, err := s.Purge(t.Context(), 0, 10)
	require.NoError(t, err)
	require.Positive(t, removed)
	require.NoError(t, s.Ping(t.Context()))

	id, err := s.BeginAction(t.Context(), "ann", "redrive", "k")
	require.NoError(t, err)
	require.NoError(t, s.EndAction(t.Context(), id, "done", false))
	_, found, err := s.Action(t.Context(), id)
	require.NoError(t, err)
	require.True(t, found)

	pending, err := s.PendingMigrations(t.Context())
	require.NoError(t, err)
	require.Zero(t, pending)
}

func TestStatementsNeedNoSearchPath(t *testing.T) {
	t.Parallel()
	for _, schema := range []string{DefaultSchema, "public", "user"} {
		address, run := empty(t)
		run("ALTER DATABASE " + address[strings.LastIndex(address, "/")+1:strings.Index(address, "?")] + " SET search_path = ''")
		_, err := Migrate(t.Context(), address, schema)
		require.NoError(t, err)
		useAll(t, open(t, address, Options{Schema: schema, Writes: true}))
	}
}

func TestMigrateDoesNotTouchTablesOfOtherPrograms(t *testing.T) {
	t.Parallel()
	address, run := empty(t)
	run(`CREATE TABLE counters (id int, name text); INSERT INTO counters VALUES (1, 'theirs')`)
	run(`CREATE TABLE counters_actions (id int)`)
	run(`CREATE TABLE goose_db_version (id serial PRIMARY KEY, version_id bigint NOT NULL, is_applied boolean NOT NULL,
		tstamp timestamp DEFAULT now())`)
	run(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, true), (1, true), (2, true), (3, true), (20240101, true)`)

	require.NoError(t, MigrateURL(t.Context(), address))
	s := open(t, address, Options{})
	useAll(t, s)
	require.Equal(t, "1 theirs", get[string](t, s, "SELECT string_agg(id || ' ' || name, ',') FROM public.counters"))
	require.Equal(t, 5, get[int](t, s, "SELECT count(*) FROM public.goose_db_version"))

	_, err := Migrate(t.Context(), address, "public")
	require.ErrorContains(t, err, `schema public has a table "counters" that belongs to another program`)
	require.ErrorContains(t, err, "set AFTERWRITE_SCHEMA to another schema")
	require.False(t, get[bool](t, s, "SELECT to_regclass('public.counters_migrations') IS NOT NULL"))
}

func TestTwoSchemasInOneDatabase(t *testing.T) {
	t.Parallel()
	address, _ := empty(t)
	for _, schema := range []string{"one", "two", "public"} {
		_, err := Migrate(t.Context(), address, schema)
		require.NoError(t, err)
		useAll(t, open(t, address, Options{Schema: schema}))
	}
}

func TestMissingGrantsAreSufficient(t *testing.T) {
	t.Parallel()
	address, run := empty(t)
	run("CREATE ROLE place_runtime LOGIN PASSWORD 'x'")
	t.Cleanup(func() { run("DROP OWNED BY place_runtime; DROP ROLE place_runtime") })
	s := open(t, as(t, address, "place_runtime"), Options{Writes: true})
	grants, err := s.MissingGrants(t.Context())
	require.NoError(t, err)
	require.Empty(t, grants, "there are no tables yet")
	require.NoError(t, MigrateURL(t.Context(), address))

	_, err = s.Read(t.Context(), []counter.Key{"k"})
	require.Equal(t, Operator, Classify(err))
	grants, err = s.MissingGrants(t.Context())
	require.NoError(t, err)
	require.ElementsMatch(t, []string{
		"GRANT USAGE ON SCHEMA afterwrite TO place_runtime",
		"GRANT SELECT, INSERT, UPDATE, DELETE ON afterwrite.counters TO place_runtime",
		"GRANT SELECT, INSERT, UPDATE, DELETE ON afterwrite.counters_actions TO place_runtime",
		"GRANT SELECT ON afterwrite.counters_migrations TO place_runtime",
	}, grants)
	for _, grant := range grants {
		run(grant)
	}
	grants, err = s.MissingGrants(t.Context())
	require.NoError(t, err)
	require.Empty(t, grants)
	useAll(t, s)
}

func TestErrorOfMigrateNamesTheMissingRight(t *testing.T) {
	t.Parallel()
	address, run := empty(t)
	run("CREATE ROLE place_migrator LOGIN PASSWORD 'x'; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
	t.Cleanup(func() { run("DROP OWNED BY place_migrator CASCADE; DROP ROLE place_migrator") })
	parsed, err := url.Parse(address)
	require.NoError(t, err)
	poor := as(t, address, "place_migrator")

	grant := fmt.Sprintf("GRANT CREATE ON DATABASE %q TO %q", parsed.Path[1:], "place_migrator")
	err = MigrateURL(t.Context(), poor)
	require.ErrorContains(t, err, "the role may not create the schema afterwrite: run "+grant+", or set AFTERWRITE_SCHEMA=public")

	_, err = Migrate(t.Context(), poor, "public")
	public := `GRANT USAGE, CREATE ON SCHEMA "public" TO "place_migrator"`
	require.ErrorContains(t, err, "run "+public)
	run(public)
	_, err = Migrate(t.Context(), poor, "public")
	require.NoError(t, err)

	run(grant + "; REVOKE ALL ON SCHEMA public FROM PUBLIC, place_migrator")
	require.NoError(t, MigrateURL(t.Context(), poor))
	useAll(t, open(t, poor, Options{}))

	run("CREATE SCHEMA prepared AUTHORIZATION place_migrator; REVOKE CREATE ON DATABASE " + parsed.Path[1:] + " FROM place_migrator")
	_, err = Migrate(t.Context(), poor, "prepared")
	require.NoError(t, err, "an existing schema is enough")
}

// older returns a database with the tables and rows of version 0.1, from the dump testdata/older.sql.
func older(t testing.TB) (address string, run func(string)) {
	t.Helper()
	address, run = empty(t)
	dump, err := os.ReadFile("testdata/older.sql")
	require.NoError(t, err)
	run(string(dump))
	return address, run
}

// olderRows are the rows in testdata/older.sql.
var olderRows = []counter.Row{
	{Key: "a", Value: 3, Version: 2, Lineage: 1795902831823891},
	{Key: "b", Value: 7, Version: 1, Lineage: 1795902831823891},
}

func TestTablesOfAnOlderVersionAreMoved(t *testing.T) {
	t.Parallel()
	address, run := older(t)
	run("CREATE ROLE place_older LOGIN PASSWORD 'x'; GRANT SELECT, INSERT, UPDATE, DELETE ON counters, counters_actions TO place_older;" +
		"GRANT SELECT ON goose_db_version TO place_older")
	t.Cleanup(func() { run("DROP OWNED BY place_older; DROP ROLE place_older") })

	old := open(t, as(t, address, "place_older"), Options{Schema: "public", Writes: true})
	before := get[string](t, old, "SELECT string_agg(c::text, ';' ORDER BY key) FROM public.counters c")
	done, err := Migrate(t.Context(), address, DefaultSchema)
	require.NoError(t, err)
	require.Equal(t, []string{"the move of the tables from schema public to afterwrite", "00004_operations.sql", "00005_operations_parts.sql"}, done)

	s := open(t, as(t, address, "place_older"), Options{Writes: true})
	require.Equal(t, before, get[string](t, s, "SELECT string_agg(c::text, ';' ORDER BY key) FROM afterwrite.counters c"))
	actions, err := s.Actions(t.Context(), 0, 10)
	require.NoError(t, err)
	require.Len(t, actions, 1)
	pending, err := open(t, address, Options{}).PendingMigrations(t.Context())
	require.NoError(t, err)
	require.Zero(t, pending)
	require.Equal(t, 4, get[int](t, old, "SELECT count(*) FROM public.goose_db_version"), "another program may use it too")

	// Both versions write the same rows.
	upsert(t, old, row("both", 1, 1))
	upsert(t, s, row("both", 2, 2))
	late, err := old.Upsert(t.Context(), []counter.Row{row("both", 1, 1)})
	require.NoError(t, err)
	require.Equal(t, []counter.Row{row("both", 2, 2)}, late)
	upserted, err := old.UpsertUnlocked(t.Context(), []counter.Row{row("both", 3, 3)})
	locked := upserted.Locked
	require.NoError(t, err)
	require.Empty(t, locked)
	old.expectLocks()
	_, err = old.UpsertUnlocked(t.Context(), []counter.Row{row("both", 4, 4), tombstone("new", 1)})
	require.NoError(t, err)
	has(t, s, row("both", 4, 4), tombstone("new", 1))
	removed, _, err := old.Purge(t.Context(), 0, 1)
	require.NoError(t, err)
	require.EqualValues(t, 1, removed)
	id, err := old.BeginAction(t.Context(), "bob", "discard", "both")
	require.NoError(t, err)
	require.NoError(t, old.EndAction(t.Context(), id, "done", false))
	actions, err = s.Actions(t.Context(), 0, 10)
	require.NoError(t, err)
	require.Equal(t, "bob", actions[0].Who)

	done, err = Migrate(t.Context(), address, DefaultSchema)
	require.NoError(t, err)
	require.Empty(t, done)
	run("DROP VIEW public.counters, public.counters_actions; DROP TABLE public.goose_db_version")
	has(t, s, row("both", 4, 4))
}

func TestOlderProcessesKeepWritingWhileTheirTablesAreMoved(t *testing.T) {
	t.Parallel()
	address, _ := older(t)
	old := open(t, address, Options{Schema: "public", Writes: true, MaxConns: 4})
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	written := make([]int64, 4)
	failed := make(chan error, len(written))
	for w := range written {
		writers.Go(func() {
			for ctx.Err() == nil {
				next := row(fmt.Sprint("w", w), written[w]+1, written[w]+1)
				if _, err := old.UpsertUnlocked(context.WithoutCancel(ctx), []counter.Row{next}); err != nil {
					failed <- err
					return
				}
				written[w]++
			}
		})
	}
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		n := get[int](t, old, "SELECT count(*) FROM public.counters WHERE key LIKE 'w%' AND version > 20")
		return n == len(written), strconv.Itoa(n)
	})
	require.NoError(t, MigrateURL(t.Context(), address))
	moved := get[int64](t, old, "SELECT sum(version)::bigint FROM afterwrite.counters WHERE key LIKE 'w%'")
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		n := get[int64](t, old, "SELECT sum(version)::bigint FROM afterwrite.counters WHERE key LIKE 'w%'")
		return n > moved+100, strconv.FormatInt(n, 10)
	})
	stop()
	writers.Wait()
	close(failed)
	for err := range failed {
		require.NoError(t, err)
	}
	s := open(t, address, Options{})
	for w, version := range written {
		has(t, s, row(fmt.Sprint("w", w), version, version))
	}
}

func TestTheMoveFailsIfATransactionLocksTheTables(t *testing.T) {
	t.Parallel()
	address, _ := older(t)
	s := open(t, address, Options{Schema: "public"})
	tx, err := s.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer func() { _ = tx.Rollback() }()
	_, err = tx.ExecContext(t.Context(), "SELECT FROM public.counters FOR UPDATE")
	require.NoError(t, err)

	_, err = Migrate(t.Context(), address, DefaultSchema)
	require.ErrorContains(t, err, "another transaction locks the tables in public; nothing was changed, try again")
	require.False(t, get[bool](t, s, "SELECT to_regnamespace('afterwrite') IS NOT NULL"))
	require.NoError(t, tx.Rollback())
	require.NoError(t, MigrateURL(t.Context(), address))
}

func TestTablesOfAnOlderVersionStayInPublicIfSchemaIsPublic(t *testing.T) {
	t.Parallel()
	address, _ := older(t)
	done, err := Migrate(t.Context(), address, "public")
	require.NoError(t, err)
	require.Equal(t, []string{"00004_operations.sql", "00005_operations_parts.sql"}, done, "there is nothing to move")
	s := open(t, address, Options{Schema: "public"})
	has(t, s, olderRows...)
	useAll(t, s)

	_, err = Migrate(t.Context(), address, "second")
	require.NoError(t, err, "a second installation")
	useAll(t, open(t, address, Options{Schema: "second"}))
}

func TestMigrateDoesNotLeaveOlderTablesBehind(t *testing.T) {
	t.Parallel()
	address, run := older(t)
	_, err := Migrate(t.Context(), address, "second")
	require.ErrorContains(t, err, "AFTERWRITE_SCHEMA=afterwrite, which moves them there, or with AFTERWRITE_SCHEMA=public")
	require.ErrorContains(t, err, "before you use schema second")

	run("DELETE FROM goose_db_version WHERE version_id = 2")
	for _, schema := range []string{DefaultSchema, "second"} {
		_, err = Migrate(t.Context(), address, schema)
		require.ErrorContains(t, err, "public.counters looks like the table of an older version")
	}
	_, err = Migrate(t.Context(), address, "public")
	require.ErrorContains(t, err, "set AFTERWRITE_SCHEMA to another schema")
	s := open(t, address, Options{Schema: "public"})
	has(t, s, olderRows...)
}
