package command

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// installation is a set of processes with an environment of their own.
type installation struct {
	*deadBundle

	api, worker, scheduler *running
	address                string // of the api
}

func install(t *testing.T, env []string) *installation {
	t.Helper()
	i := &installation{deadBundle: &deadBundle{env: env}}
	i.succeeds(t, "migrate")
	i.api, i.worker, i.scheduler = start(t, env, "api"), start(t, env, "worker"), start(t, env, "scheduler")
	i.address = i.api.url(t)
	return i
}

// set writes the counter.
func (i *installation) set(t *testing.T, key string, value int) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, i.address+"/v1/counters/"+key,
		strings.NewReader(fmt.Sprintf(`{"value":%d}`, value)))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusOK, response.StatusCode)
}

func TestTwoInstallationsShareARedisAndAPostgres(t *testing.T) {
	t.Parallel()
	redisURL, postgresURL := localtest.RedisURL(t), localtest.PostgresURL(t, nil)
	env := append([]string{
		"REDIS_URL=" + redisURL, "DATABASE_URL=" + postgresURL, "AFTERWRITE_MAX_ATTEMPTS=1", "AFTERWRITE_RETRY_BACKOFF=10ms",
	}, anywhere...)
	client := adminOf(t, redisURL)
	firstEnv := restrict(t, client, "first", env)
	secondEnv := append([]string{"AFTERWRITE_SCHEMA=second", "AFTERWRITE_NAMESPACE=second", "AFTERWRITE_SHARDS=4"}, env...)
	secondEnv = restrict(t, client, "second", secondEnv)
	first, second := install(t, firstEnv), install(t, secondEnv)
	db, err := sql.Open("postgres", postgresURL)
	require.NoError(t, err)
	defer db.Close()
	rows := func(key string) (values string) {
		const query = "SELECT (SELECT value FROM afterwrite.counters WHERE key = $1) || ' ' || (SELECT value FROM second.counters WHERE key = $1)"
		require.NoError(t, db.QueryRowContext(t.Context(), query, key).Scan(&values))
		return values
	}
	execute := func(statement string) {
		_, err := db.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}

	// The same keys hold different values.
	for _, key := range []string{"a", "b"} {
		first.set(t, key, 1)
		second.set(t, key, 2)
	}
	first.succeeds(t, "flush", "--wait")
	second.succeeds(t, "flush", "--wait")
	require.Equal(t, "1 2", rows("a"))
	require.Equal(t, "1 2", rows("b"))

	// A dead letter of one is none of the other.
	execute("ALTER TABLE second.counters ADD CONSTRAINT small CHECK (value < 10)")
	first.set(t, "b", 11)
	second.set(t, "b", 22)
	first.succeeds(t, "flush", "--wait")
	localtest.Eventually(t, patience, func() (bool, string) {
		text := second.succeeds(t, "dead", "list")
		return strings.HasPrefix(text, "KEY"), text
	})
	require.Empty(t, first.succeeds(t, "dead", "list"))
	require.Equal(t, "11 2", rows("b"))
	execute("ALTER TABLE second.counters DROP CONSTRAINT small")
	require.Contains(t, first.succeeds(t, "dead", "redrive", "--all"), "redriven: none")
	second.succeeds(t, "dead", "redrive", "--all", "--wait")
	require.Equal(t, "11 22", rows("b"))

	// A drain of one leaves the other's counters dirty.
	for _, i := range []*installation{first, second} {
		i.worker.stop(t)
		i.set(t, "a", 3)
	}
	first.succeeds(t, "worker", "--drain")
	require.Equal(t, "3 2", rows("a"))
	require.Contains(t, second.succeeds(t, "flush"), "dirty: 1")
	second.succeeds(t, "worker", "--drain")
	require.Equal(t, "3 3", rows("a"))

	for _, name := range []string{"aw:pulse", "second:aw:pulse"} {
		require.EqualValues(t, 2, client.HLen(t.Context(), name).Val(), "the api and the scheduler of one")
	}
	for _, i := range []*installation{first, second} {
		i.succeeds(t, "doctor")
		i.succeeds(t, "verify")
		dashboard := start(t, i.env, "dashboard")
		for _, page := range []string{"/", "/dead", "/keys?key=a", "/asynq", "/asynq/api/servers", "/asynq/api/redis_info"} {
			status, body := get(t, dashboard.url(t)+page)
			require.Equal(t, http.StatusOK, status, page+" "+body)
		}
		dashboard.stop(t)
		i.api.stop(t)
		i.scheduler.stop(t)
	}
	names, err := client.Keys(t.Context(), "*").Result()
	require.NoError(t, err)
	require.Contains(t, names, "aw:meta")
	require.Contains(t, names, "second:aw:meta")
	for _, name := range names {
		require.Regexp(t, `^(asynq|aw:|\{aw:|second:aw:|\{second:aw:)`, name)
	}
}

func TestDoctorPrintsTheGrantsOfARole(t *testing.T) {
	t.Parallel()
	env := servers(t)
	admin := environMap(env)["DATABASE_URL"]
	parsed, err := url.Parse(admin)
	require.NoError(t, err)
	parsed.User = url.UserPassword("command_runtime", "x")
	db, err := sql.Open("postgres", admin)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	run := func(statement string) {
		_, err := db.ExecContext(context.WithoutCancel(t.Context()), statement)
		require.NoError(t, err, statement)
	}
	run("CREATE ROLE command_runtime LOGIN PASSWORD 'x'")
	t.Cleanup(func() { run("DROP OWNED BY command_runtime; DROP ROLE command_runtime") })
	poor := slices.Concat(env, []string{"DATABASE_URL=" + parsed.String()}) // of a name that is there twice, exec takes the last

	p := start(t, poor, "doctor")
	require.Equal(t, exitFailure, p.end(t))
	_, fix, found := strings.Cut(p.text.String(), "run as their owner: ")
	require.True(t, found, p.out.String())
	fix, _, _ = strings.Cut(fix, "\n")
	for statement := range strings.SplitSeq(fix, "; ") {
		require.True(t, strings.HasPrefix(statement, "GRANT "), statement)
		run(statement)
	}
	b := &deadBundle{env: poor}
	b.succeeds(t, "doctor")
	api, worker := start(t, poor, "api"), start(t, poor, "worker")
	(&installation{address: api.url(t)}).set(t, "k", 5)
	b.succeeds(t, "flush", "--wait")
	b.succeeds(t, "verify")
	b.succeeds(t, "dead", "list")
	b.succeeds(t, "migrate", "--status")
	worker.stop(t)
	var value int
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT value FROM afterwrite.counters WHERE key = 'k'").Scan(&value))
	require.Equal(t, 5, value)
}
