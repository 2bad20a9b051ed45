package command

import (
	"database/sql"
	"encoding/json"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/operate"
)

// setupColumns returns the environment of a Postgres with the tables of testMappings.
func setupColumns(t *testing.T) []string {
	t.Helper()
	env := append(servers(t), mappingsVariable(t, testMappings))
	executeIn(t, env, createPosts)
	executeIn(t, env, createDays)
	return env
}

// runs starts the program, requires its exit status, and returns it.
func runs(t *testing.T, status int, env []string, args ...string) *running {
	t.Helper()
	p := start(t, env, args...)
	require.Equal(t, status, p.end(t), p.out.String())
	return p
}

// waitFor waits until a query of the Postgres of env returns true.
func waitFor(t *testing.T, env []string, query string) {
	t.Helper()
	db, err := sql.Open("postgres", environMap(env)["DATABASE_URL"])
	require.NoError(t, err)
	defer db.Close()
	localtest.Eventually(t, patience, func() (is bool, _ string) {
		require.NoError(t, db.QueryRowContext(t.Context(), query).Scan(&is))
		return is, query
	})
}

func TestMappingsImportSaysWhatItDid(t *testing.T) {
	t.Parallel()
	env := setupColumns(t)
	executeIn(t, env, `INSERT INTO blog.posts VALUES (1, 10), (2, 0), (3, NULL), (4, 40)`)
	p := runs(t, exitOK, env, "mappings", "import", "post-likes")
	require.Regexp(t, `(?m)^rows +4 `, p.text.String())
	require.Regexp(t, `(?m)^imported +2 `, p.text.String())
	require.Empty(t, p.errs.String())

	var report operate.Imported
	p = runs(t, exitOK, env, "mappings", "import", "post-likes", "--json", "--after", `["1"]`)
	require.NoError(t, json.Unmarshal([]byte(p.text.String()), &report))
	require.Equal(t, operate.Imported{
		Mapping: "post-likes", Complete: true, Rows: 3, Empty: 2, Present: 1, After: `["4"]`, Examples: []string{},
	}, report)

	require.Contains(t, start(t, env, "mappings", "import", "post-likes", "--after", "4").oneLine(t), "is not a row of this mapping")
	require.Contains(t, start(t, env, "mappings", "import", "likes").oneLine(t), "it has post-likes, daily-views")
	require.Contains(t, start(t, servers(t), "mappings", "import", "likes").oneLine(t), "AFTERWRITE_MAPPINGS is not set")
}

func TestInterruptedImportSaysHowToGoOn(t *testing.T) {
	t.Parallel()
	env := setupColumns(t)
	executeIn(t, env, `INSERT INTO blog.days SELECT n, '2024-02-29', n FROM generate_series(1, 12000) n`)
	// The first page uses up what --rate permits at once, so the second page waits for more than an hour.
	p := start(t, env, "mappings", "import", "daily-views", "--rate", "1")
	waitFor(t, env, `SELECT count(*) = 5000 FROM afterwrite.counters`)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGINT))
	require.Equal(t, exitFailure, p.end(t))
	require.Regexp(t, `(?m)^imported +5000 `, p.text.String())
	require.Equal(t, "afterwrite: interrupted after 5000 rows: to go on, run it with --after '[\"5000\",\"2024-02-29\"]'\n", p.errs.String())

	p = runs(t, exitOK, env, "mappings", "import", "daily-views", "--after", `["5000","2024-02-29"]`)
	require.Regexp(t, `(?m)^imported +7000 `, p.text.String())
}

func TestMappingsVerifyAndBackfill(t *testing.T) {
	t.Parallel()
	env := setupColumns(t)
	executeIn(t, env, `INSERT INTO blog.posts VALUES (1, 10), (2, 20), (3, 30)`)
	runs(t, exitOK, env, "mappings", "import", "post-likes")
	executeIn(t, env, `UPDATE afterwrite.counters SET version = 1`)
	require.Regexp(t, `(?m)^equal +3 `, runs(t, exitOK, env, "mappings", "verify", "post-likes").text.String())

	executeIn(t, env, `UPDATE blog.posts SET likes = NULL WHERE id = 2; INSERT INTO blog.posts VALUES (5, 50)`)
	p := runs(t, exitFailure, env, "mappings", "verify", "post-likes", "--unimported")
	require.Regexp(t, `(?m)^differs +1 `, p.text.String())
	require.Regexp(t, `(?m)^unimported +1 `, p.text.String())
	require.Regexp(t, `(?m)^post:2:likes +blog\.posts \(id = 2\) +differs +20 +NULL +false$`, p.text.String())
	require.Equal(t, "afterwrite: 1 differences are left: see above\n", p.errs.String())

	p = runs(t, exitOK, env, "mappings", "verify", "post-likes", "--repair", "--json")
	var verified operate.ColumnVerified
	require.NoError(t, json.Unmarshal([]byte(p.text.String()), &verified))
	require.EqualValues(t, 1, verified.Repaired)
	runs(t, exitOK, env, "mappings", "verify", "post-likes")

	executeIn(t, env, `UPDATE blog.posts SET likes = 0; ALTER TABLE blog.posts ADD CHECK (likes < 30)`)
	p = runs(t, exitFailure, env, "mappings", "backfill", "post-likes")
	require.Regexp(t, `(?m)^updated +2 `, p.text.String())
	require.Regexp(t, `(?m)^post:3:likes +blog\.posts \(id = 3\) +refused +.*posts_likes_check`, p.text.String())
	require.Equal(t, "afterwrite: 1 counters were not written: see above\n", p.errs.String())
	executeIn(t, env, `ALTER TABLE blog.posts DROP CONSTRAINT posts_likes_check`)
	p = runs(t, exitOK, env, "mappings", "backfill", "post-likes", "--json")
	var backfilled operate.Backfilled
	require.NoError(t, json.Unmarshal([]byte(p.text.String()), &backfilled))
	require.Equal(t, operate.Backfilled{
		Mapping: "post-likes", Complete: true, Counters: 3, Equal: 2, Updated: 1, Examples: []operate.BackfillException{},
	}, backfilled)
}

func TestMappingsArgumentsThatMakeNoSenseAreAUsageError(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"import"}, {"import", "a", "--rate=-1"}, {"backfill", "a", "--show=-1"}, {"verify", "a", "b"}, {"backfill", "a", "--after", "b"},
	} {
		require.Equal(t, exitUsage, runHere(t.Context(), append([]string{"mappings"}, args...)...).status, "%v", args)
	}
	require.Contains(t, runHere(t.Context(), "mappings", "verify", "--help").stdout, "afterwrite mappings verify post-likes --repair")
}
