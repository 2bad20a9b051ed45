package command

import (
	"database/sql"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const testMappings = `
mappings:
  - name: post-likes
    key: "post:{id:int}:likes"
    table: blog.posts
    where: {id: "{id}"}
    set: likes
  - name: daily-views
    key: "views:{post:int}:{day:date}"
    table: blog.days
    where: {post: "{post}", day: "{day}"}
    set: views
    missing: insert
`

// mappingsVariable writes text into a file and returns the variable with its path.
func mappingsVariable(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mappings.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return "AFTERWRITE_MAPPINGS=" + path
}

// executeIn executes a statement in the Postgres of env.
func executeIn(t *testing.T, env []string, statement string) {
	t.Helper()
	db, err := sql.Open("postgres", environMap(env)["DATABASE_URL"])
	require.NoError(t, err)
	defer db.Close()
	_, err = db.ExecContext(t.Context(), statement)
	require.NoError(t, err)
}

const (
	createPosts = "CREATE SCHEMA blog; CREATE TABLE blog.posts (id int PRIMARY KEY, likes int)"
	createDays  = "CREATE TABLE blog.days (post int, day date, views int, PRIMARY KEY (post, day))"
)

func TestMappingsCheckPrintsEachMappingAndWhatToChange(t *testing.T) {
	t.Parallel()
	env := append(servers(t), mappingsVariable(t, testMappings))
	executeIn(t, env, createPosts)

	p := start(t, env, "mappings", "check")
	require.Equal(t, exitFailure, p.end(t))
	require.Equal(t, `MAPPING      KEY                          COLUMN            STATE
post-likes   post:{id:int}:likes          blog.posts.likes  ok
daily-views  views:{post:int}:{day:date}  blog.days.views   refused

daily-views: the table blog.days does not exist
-> create it, or correct table in the file
`, p.text.String())
	require.Equal(t, "afterwrite: 1 of 2 mappings do not fit the tables: see above\n", p.errs.String())

	p = start(t, env, "mappings", "check", "--json")
	require.Equal(t, exitFailure, p.end(t))
	var checked []map[string]any
	require.NoError(t, json.Unmarshal([]byte(p.text.String()), &checked))
	require.Equal(t, []map[string]any{
		{"name": "post-likes", "key": "post:{id:int}:likes", "column": "blog.posts.likes", "state": "ok", "problems": []any{}},
		{
			"name": "daily-views", "key": "views:{post:int}:{day:date}", "column": "blog.days.views", "state": "refused",
			"problems": []any{map[string]any{"problem": "the table blog.days does not exist", "fix": "create it, or correct table in the file"}},
		},
	}, checked)

	executeIn(t, env, createDays)
	p = start(t, env, "mappings", "check")
	require.Equal(t, exitOK, p.end(t))
	require.NotContains(t, p.text.String(), "refused")
	require.Empty(t, p.errs.String())
}

func TestMappingsCheckNeedsAFileAndPostgres(t *testing.T) {
	t.Parallel()
	p := start(t, []string{noPostgres}, "mappings", "check")
	require.Contains(t, p.oneLine(t), "AFTERWRITE_MAPPINGS is not set: set it to the path of a file")

	p = start(t, []string{noPostgres, "AFTERWRITE_MAPPINGS=/nowhere/mappings.yaml"}, "mappings", "check")
	require.Contains(t, p.oneLine(t), "/nowhere/mappings.yaml")

	text := start(t, []string{noPostgres, mappingsVariable(t, testMappings)}, "mappings", "check").oneLine(t)
	require.Contains(t, text, "check the mappings: ")
	require.NotContains(t, text, "hunter2")
}

func TestMappingThatDoesNotFitKeepsApiAndWorkerFromStarting(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"api", "worker", "dashboard", "scheduler"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := append(servers(t), mappingsVariable(t, testMappings))
			executeIn(t, env, createPosts)
			const problem = "postgres mapping daily-views: the table blog.days does not exist"
			switch name {
			case "api", "worker":
				p := start(t, env, name)
				require.Equal(t, exitFailure, p.end(t))
				require.Contains(t, p.errs.String(), "afterwrite: refusing to start: "+problem)
				executeIn(t, env, createDays)
			case "dashboard": // shows what is wrong
				p := start(t, env, name)
				p.url(t)
				require.Contains(t, p.errs.String(), "the table blog.days does not exist")
				p.stop(t)
			}
			p := start(t, env, name)
			p.url(t)
			p.stop(t)
		})
	}
}

func TestFileOfMappingsThatIsNotValidKeepsProcessesFromStarting(t *testing.T) {
	t.Parallel()
	broken := mappingsVariable(t, strings.ReplaceAll(testMappings, "set: likes", "sets: likes"))
	for _, args := range [][]string{{"api"}, {"worker"}, {"dashboard"}, {"doctor"}, {"up"}} {
		text := start(t, append(servers(t), broken), args...).oneLine(t)
		require.Contains(t, text, "AFTERWRITE_MAPPINGS: ", "%v", args)
		require.Contains(t, text, `"sets"`)
	}
}

func TestUpPassesMappingsToItsProcesses(t *testing.T) {
	t.Parallel()
	p := startUp(t, dataDir(t), mappingsVariable(t, testMappings))
	require.Equal(t, exitFailure, p.end(t))
	require.Contains(t, p.out.String(), "refusing to start: postgres mapping post-likes: the schema blog does not exist")
}
