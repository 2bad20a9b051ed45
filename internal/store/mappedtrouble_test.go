package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/mapping"
)

// onLikes creates a trigger that runs the body of a PL/pgSQL function for each row whose likes are updated. when is BEFORE, AFTER or
// DEFERRED: at COMMIT.
func onLikes(t testing.TB, s *Store, when, body string) {
	t.Helper()
	exec(t, s, "CREATE FUNCTION on_likes() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN "+body+" RETURN NEW; END$$")
	trigger := "CREATE TRIGGER on_likes " + when + " UPDATE OF likes ON posts FOR EACH ROW EXECUTE FUNCTION on_likes()"
	if when == "DEFERRED" {
		trigger = "CREATE CONSTRAINT TRIGGER on_likes AFTER UPDATE OF likes ON posts DEFERRABLE INITIALLY DEFERRED " +
			"FOR EACH ROW EXECUTE FUNCTION on_likes()"
	}
	exec(t, s, trigger)
}

// Only COMMIT shows that a deferred constraint refuses a row, so nothing says which mapping it belongs to. The caller halves the batch.
func TestARowThatCommitRefusesNamesItsMapping(t *testing.T) {
	t.Parallel()
	s := setupMapped(t)
	onLikes(t, s, "DEFERRED", "IF NEW.id = 3 THEN RAISE 'post 3 is closed'; END IF;")
	batch := []counter.Row{counted("post:2:likes", 0, 2, 1), counted("post:3:likes", 0, 3, 1), counted("post:3:views", 0, 3, 1)}
	_, err := s.UpsertUnlocked(t.Context(), batch)
	require.Equal(t, Refused, Classify(err), err)
	require.Empty(t, columns(t, s, "SELECT key FROM counters"))
	_, err = s.UpsertUnlocked(t.Context(), batch[1:2])
	require.Equal(t, Refused, Classify(err), err)
	require.ErrorContains(t, err, "mapping likes: ")
	require.ErrorContains(t, err, "post 3 is closed")
	upsertMapped(t, s, batch[0], batch[2])
	require.True(t, s.Up())
}

func TestTroubleOfATableKeepsOnlyItsOwnCounters(t *testing.T) {
	t.Parallel()
	for name, trouble := range map[string]func(s *Store){
		"a trigger reads a table that was dropped": func(s *Store) { onLikes(t, s, "AFTER", "PERFORM FROM gone;") },
		"the same at COMMIT":                       func(s *Store) { onLikes(t, s, "DEFERRED", "PERFORM FROM gone;") },
		"a publication without a replica identity": func(s *Store) {
			exec(t, s, "ALTER TABLE posts DROP CONSTRAINT posts_pkey; CREATE UNIQUE INDEX ON posts (id)")
			exec(t, s, "CREATE PUBLICATION p FOR TABLE posts")
		},
		"a view": func(s *Store) {
			exec(t, s, "ALTER TABLE posts RENAME TO posts2; CREATE VIEW public.posts AS SELECT DISTINCT id, likes, views FROM posts2")
		},
		"a trigger cannot reach another server": func(s *Store) {
			exec(t, s, "CREATE EXTENSION dblink")
			onLikes(t, s, "BEFORE", "PERFORM dblink_connect('host=127.0.0.1 port=1 connect_timeout=1');")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := setupMapped(t)
			trouble(s)
			for n := range int64(failuresToOpen + 1) {
				upserted := upsertMapped(t, s, later("post:1:likes", 2, n+2), later("views:1:2026-11-29", 3, n+2), later("x", 1, n+2))
				require.NotEmpty(t, upserted.Broken)
				require.Equal(t, "likes", upserted.Broken[0].Mapping)
				require.Equal(t, []counter.Key{"post:1:likes"}, upserted.Broken[0].Keys)
			}
			require.True(t, s.Up())
			require.Equal(t, "(views:1:2026-11-29)\n(x)", columns(t, s, "SELECT key FROM counters ORDER BY key"))
		})
	}
}

// A trigger chooses the code of its error, and row-level security refuses a row with the code of a missing permission.
func TestARefusalWithTheCodeOfATroubleIsARefusal(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"42501", "42704", "55000", "08006", "53000", "XX000"} {
		for _, when := range []string{"BEFORE", "DEFERRED"} {
			t.Run(code+" "+when, func(t *testing.T) {
				t.Parallel()
				s := setupMapped(t)
				onLikes(t, s, when, "IF NEW.id = 3 THEN RAISE 'post 3 is closed' USING ERRCODE = '"+code+"'; END IF;")
				for _, batch := range [][]counter.Row{
					{later("post:2:likes", 2, 2), later("post:3:likes", 2, 2), later("x", 2, 2)}, {later("post:3:likes", 2, 2)},
				} {
					upserted, err := s.UpsertUnlocked(t.Context(), batch)
					require.Empty(t, upserted.Broken)
					require.Equal(t, Refused, Classify(err), err)
					require.ErrorContains(t, err, "post 3 is closed")
					require.ErrorContains(t, err, "mapping likes: ")
				}
				require.True(t, s.Up())
			})
		}
	}
}

// A user's transaction locks a table to which a trigger writes, so each row of the mapping waits for it.
func TestALockThatATriggerWaitsForHoldsOnlyItsOwnCounters(t *testing.T) {
	t.Parallel()
	s := setupMapped(t)
	exec(t, s, "CREATE TABLE public.audit (id int)")
	onLikes(t, s, "AFTER", "INSERT INTO audit VALUES (NEW.id);")
	lockingClient(t, s, "LOCK TABLE audit IN ACCESS EXCLUSIVE MODE")
	var batch []counter.Row
	for n := range 50 {
		batch = append(batch, later(fmt.Sprintf("post:%d:likes", n+1), 1, 2), later(fmt.Sprintf("post:%d:views", n+1), 1, 2),
			later(fmt.Sprintf("x%d", n), 1, 2))
	}
	for range failuresToOpen + 1 {
		upserted := upsertMapped(t, s, batch...)
		require.Len(t, upserted.Locked, 50)
	}
	require.Equal(t, "(100)", columns(t, s, "SELECT count(*) FROM counters"))
	require.True(t, s.Up())
}

const manyOfOneTable = 15

// setupMany returns a Store with many mappings of one table.
func setupMany(t *testing.T, options Options) *Store {
	t.Helper()
	var file, table strings.Builder
	for n := range manyOfOneTable {
		fmt.Fprintf(&file, "  - {name: m%d, key: \"post:{id:int}:m%[1]d\", table: posts, where: {id: \"{id}\"}, set: m%[1]d}\n", n)
		fmt.Fprintf(&table, ", m%d int NOT NULL DEFAULT 0", n)
	}
	mappings, err := mapping.Parse([]byte("mappings:\n" + file.String()))
	require.NoError(t, err)
	options.Mappings = mappings
	s := open(t, localtest.PostgresURL(t, migrateTemplate), options)
	exec(t, s, "CREATE TABLE public.posts (id int PRIMARY KEY"+table.String()+"); INSERT INTO posts VALUES (1)")
	return s
}

func rowsOfOneTable() []counter.Row {
	batch := []counter.Row{later("x", 1, 2)}
	for n := range manyOfOneTable {
		batch = append(batch, later(fmt.Sprintf("post:1:m%d", n), 1, 2))
	}
	return batch
}

func TestALockedTableIsWaitedForOnce(t *testing.T) {
	t.Parallel()
	s := setupMany(t, Options{})
	lockingClient(t, s, "LOCK TABLE posts IN ACCESS EXCLUSIVE MODE")
	began := time.Now()
	require.Len(t, upsertMapped(t, s, rowsOfOneTable()...).Locked, manyOfOneTable)
	require.Less(t, time.Since(began), 500*time.Millisecond)
}

// Each statement is faster than the statement timeout, but all together are not. With fewer rows the call succeeds.
func TestManySlowColumnsAreTooSlow(t *testing.T) {
	t.Parallel()
	s := setupMany(t, Options{StatementTimeout: time.Second})
	exec(t, s, `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.4); RETURN NEW; END';
		CREATE TRIGGER slow BEFORE UPDATE ON posts FOR EACH ROW EXECUTE FUNCTION slow()`)
	_, err := s.UpsertUnlocked(t.Context(), rowsOfOneTable())
	require.Error(t, err)
	require.True(t, TooSlow(err), err)
	localtest.Eventually(t, 10*time.Second, func() (bool, string) { // the server may still hold the locks of the first call
		locked := upsertMapped(t, s, rowsOfOneTable()[:4]...).Locked
		return len(locked) == 0, fmt.Sprint(locked)
	})
}

func TestReadWaitsBrieflyForALockedTable(t *testing.T) {
	t.Parallel()
	s := setupMapped(t)
	exec(t, s, "INSERT INTO stats.daily_views VALUES (1, '2026-11-29', 'page', 7)")
	unlock := lockingClient(t, s, "LOCK TABLE posts IN ACCESS EXCLUSIVE MODE")
	loader := NewLoader(s, 100*time.Millisecond)
	t.Cleanup(loader.Close)
	keys := []counter.Key{"post:1:likes", "views:1:2026-11-29", "x"}
	for range failuresToOpen + 1 {
		localtest.Eventually(t, 10*time.Second, func() (bool, string) { // on a busy machine all of it may take too long
			rows, err := loader.Read(t.Context(), keys)
			unread := Unread(err)
			require.True(t, unread[keys[0]] || errors.Is(err, context.DeadlineExceeded), err)
			require.NotContains(t, rows, keys[0])
			return len(unread) == 1 && unread[keys[0]] && rows[keys[1]] == row(string(keys[1]), 7, 0), fmt.Sprint(rows, err)
		})
	}
	require.True(t, s.Up())
	_, err := s.Read(t.Context(), keys[:1])
	require.ErrorIs(t, err, ErrBusy)
	unlock()
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		_, err := loader.Read(context.WithoutCancel(t.Context()), keys)
		return err == nil, fmt.Sprint(err)
	})
}

// Row-level security refuses a row with the code of a missing permission, and a partitioned table one that has no partition.
func TestARowThatATableDoesNotAdmitIsRefusedAlone(t *testing.T) {
	t.Parallel()
	s := setupMapped(t)
	exec(t, s, `DROP TABLE stats.daily_views;
		CREATE TABLE stats.daily_views (post_id bigint, day date, kind varchar(10), views numeric, UNIQUE (post_id, day, kind))
			PARTITION BY RANGE (post_id);
		CREATE TABLE stats.few PARTITION OF stats.daily_views FOR VALUES FROM (0) TO (100);
		CREATE ROLE trouble_writer LOGIN PASSWORD 'x';
		GRANT USAGE ON SCHEMA afterwrite, stats TO trouble_writer;
		GRANT ALL ON afterwrite.counters, stats.daily_views TO trouble_writer;
		ALTER TABLE stats.daily_views ENABLE ROW LEVEL SECURITY;
		CREATE POLICY all_rows ON stats.daily_views USING (true) WITH CHECK (post_id <> 3)`)
	writer := asRole(t, s, "trouble_writer")
	refused := map[string]string{"views:3:2026-11-29": "row-level security", "views:100:2026-11-29": "no partition of relation"}
	batch := []counter.Row{counted("views:2:2026-11-29", 0, 1, 1), counted("x", 0, 1, 1)}
	for key, reason := range refused {
		row := counted(key, 0, 1, 1)
		for _, rows := range [][]counter.Row{{row}, append(batch, row)} {
			upserted, err := writer.UpsertUnlocked(t.Context(), rows)
			require.Empty(t, upserted.Broken)
			require.Equal(t, Refused, Classify(err), err)
			require.ErrorContains(t, err, "mapping daily: ")
			require.ErrorContains(t, err, reason)
		}
	}
	require.Empty(t, upsertMapped(t, writer, batch...).Refused)
	require.Equal(t, "(2,1)", columns(t, s, "SELECT post_id, views FROM stats.daily_views"))
}

// A constant that no longer fits its column is wrong for all counters, so none of them is refused.
func TestAConstantThatNoLongerFitsBreaksTheMapping(t *testing.T) {
	t.Parallel()
	s := setupMapped(t)
	exec(t, s, "ALTER TABLE stats.daily_views ALTER kind TYPE integer USING 1")
	upserted := upsertMapped(t, s, later("views:1:2026-11-29", 3, 2), later("x", 1, 2))
	require.Len(t, upserted.Broken, 1)
	require.ErrorContains(t, upserted.Broken[0].Err, "mapping daily: ")
	_, err := s.Read(t.Context(), []counter.Key{"views:2:2026-11-29", "x"})
	require.Len(t, Unread(err), 1)
}
