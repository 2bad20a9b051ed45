package command

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"github.com/afterwrite/afterwrite/dashboard/auth"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/store"
)

func migrated(url string) error { return store.MigrateURL(context.Background(), url) }

// anywhere are the addresses of processes on ports that the system chooses.
var anywhere = []string{
	"AFTERWRITE_API_ADDR=127.0.0.1:0", "AFTERWRITE_WORKER_ADDR=127.0.0.1:0",
	"AFTERWRITE_SCHEDULER_ADDR=127.0.0.1:0", "AFTERWRITE_DASHBOARD_ADDR=127.0.0.1:0", "AFTERWRITE_RESP_ADDR=127.0.0.1:0",
}

// servers is the environment of processes on a Redis and a Postgres of their own.
func servers(t *testing.T) []string {
	t.Helper()
	return append([]string{
		"REDIS_URL=" + localtest.RedisURL(t), "DATABASE_URL=" + localtest.PostgresURL(t, migrated),
	}, anywhere...)
}

// regexpQueues finds a queue among the metrics.
var regexpQueues = regexp.MustCompile(`asynq_queue_size\{queue="aw-sweep"\} \d`)

// noPostgres is a place where none is.
const noPostgres = "DATABASE_URL=postgres://me:hunter2@127.0.0.1:1/nowhere"

func (p *running) url(t *testing.T) string {
	t.Helper()
	return "http://" + p.find(t, `listening.* address=(\S+)`)
}

func TestEveryProcessServesItsHealthAndMetricsAndStopsWhenTold(t *testing.T) {
	t.Parallel()
	for name, metric := range map[string]string{
		"api": "afterwrite_writes_total", "worker": "afterwrite_flushed_rows_total",
		"scheduler": "afterwrite_sweeps_enqueued_total", "dashboard": "go_goroutines",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, servers(t), name)
			url := p.url(t)

			status, body := get(t, url+"/healthz")
			require.Equal(t, http.StatusOK, status)
			require.Contains(t, body, `"status":"ok"`)
			status, body = get(t, url+"/readyz")
			require.Equal(t, http.StatusOK, status)
			require.Contains(t, body, `"redis":"ok"`)
			status, body = get(t, url+"/metrics")
			require.Equal(t, http.StatusOK, status)
			require.Contains(t, body, metric)
			require.Contains(t, body, "afterwrite_dirty_keys 0")
			require.Contains(t, body, "go_goroutines")

			p.stop(t)
		})
	}
}

func TestTheSchedulerExportsTheQueues(t *testing.T) {
	t.Parallel()
	p := start(t, servers(t), "scheduler")
	url := p.url(t) + "/metrics"
	localtest.Eventually(t, patience, func() (bool, string) {
		_, body := get(t, url)
		return regexpQueues.MatchString(body), body
	})
	p.stop(t)
}

func TestTheSchedulerSaysOnceThatItCannotExportTheQueues(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{AppendOnly: true})
	p := start(t, append([]string{"REDIS_URL=" + server.URL()}, anywhere...), "scheduler")
	url := p.url(t) + "/metrics"
	exports := func() (bool, string) {
		_, body := get(t, url)
		return regexpQueues.MatchString(body), body
	}
	localtest.Eventually(t, patience, exports)

	require.NoError(t, server.Stop(t.Context()))
	for range 3 {
		_, body := get(t, url)
		require.NotContains(t, body, "asynq_")
	}
	require.NoError(t, server.Start(t.Context()))
	localtest.Eventually(t, patience, exports)
	p.stop(t)

	require.Equal(t, 1, strings.Count(p.out.String(), "the queues are not among the metrics"))
	require.Equal(t, 1, strings.Count(p.out.String(), "the queues are among the metrics again"))
	require.NotContains(t, p.out.String(), "Failed to collect", "that is Asynq's, at each scrape")
}

func TestTheDashboardShowsItsPages(t *testing.T) {
	t.Parallel()
	p := start(t, servers(t), "dashboard")

	status, body := get(t, p.url(t)+"/")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, "Workers are not running; 0 keys are waiting")
	status, body = get(t, p.url(t)+"/asynq")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, "Asynq")

	p.stop(t)
	require.NotContains(t, p.out.String(), "no login")
}

func TestTheDashboardRefusesToBeOpenToOthers(t *testing.T) {
	t.Parallel()
	port, err := local.FreePort()
	require.NoError(t, err)
	env := append(servers(t), "PORT="+strconv.Itoa(port))
	require.Contains(t, start(t, env, "dashboard").oneLine(t), "set AFTERWRITE_DASHBOARD_USERS")
	line := start(t, append(env, "AFTERWRITE_DASHBOARD_USERS=olga:secret"), "dashboard").oneLine(t)
	require.Contains(t, line, "AFTERWRITE_DASHBOARD_USERS: user 1: the hash of olga must be a bcrypt hash")
	require.NotContains(t, line, "secret")

	hash := start(t, nil, "dashboard", "hash-password", "--role", "operator", "olga")
	require.Equal(t, exitFailure, hash.end(t), "there is no password on stdin")
	made := exec.Command(hash.cmd.Path, "dashboard", "hash-password", "--role", "operator", "olga")
	made.Env = []string{programVariable + "=1"}
	made.Stdin = strings.NewReader("correct horse battery\n")
	user, err := made.Output()
	require.NoError(t, err)
	require.Regexp(t, `^olga:operator:\$2a\$12\$\S+\n$`, string(user))

	_, secret, _ := strings.Cut(strings.TrimSpace(string(user)), "operator:")
	for _, variable := range []string{"OPERATORS", "TRUSTED_PROXIES", "USER_HEADER", "HOSTS", "ADDR"} { // each the wrong one
		line := start(t, append(env, "AFTERWRITE_DASHBOARD_"+variable+"="+strings.TrimSpace(string(user))), "dashboard").oneLine(t)
		require.NotContains(t, line, secret, variable)
	}

	p := start(t, append(env, "AFTERWRITE_DASHBOARD_USERS="+strings.TrimSpace(string(user))), "dashboard")
	status, _ := get(t, p.url(t)+"/dead")
	require.Equal(t, http.StatusUnauthorized, status)
	status, _ = get(t, p.url(t)+"/readyz")
	require.Equal(t, http.StatusOK, status)
	p.stop(t)
}

// A hosts file may give localhost another address.
func TestTheDashboardIsNotOpenWhereverItsNameLeads(t *testing.T) {
	t.Parallel()
	here, everywhere := config.Config{DashboardAddr: "localhost:0"}, config.Config{DashboardAddr: "0.0.0.0:0"}
	listener, err := dashboardPlan.Listen(here)
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	_, err = dashboardPlan.Listen(everywhere)
	require.ErrorIs(t, err, auth.ErrOpen)
	elsewhere := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 8081}
	require.ErrorIs(t, dashboardPlan.Refuse(here, elsewhere), auth.ErrOpen)

	hash, err := auth.HashPassword("correct horse battery")
	require.NoError(t, err)
	here.DashboardUsers = "ann:" + hash
	require.NoError(t, dashboardPlan.Refuse(here, elsewhere), "there somebody signs in")
}

func TestTheDashboardRefusesNamesThatLeadPastItsDoor(t *testing.T) {
	t.Parallel()
	env := servers(t)
	line := start(t, append(env, "AFTERWRITE_DASHBOARD_HOSTS=localhost,aw.example.com"), "dashboard").oneLine(t)
	require.Contains(t, line, "open to everybody who can reach it: as aw.example.com: set AFTERWRITE_DASHBOARD_USERS")

	env = append(env, "AFTERWRITE_DASHBOARD_TRUSTED_PROXIES=127.0.0.1", "AFTERWRITE_DASHBOARD_USER_HEADER=X-Forwarded-User")
	require.Contains(t, start(t, env, "dashboard").oneLine(t), "set AFTERWRITE_DASHBOARD_HOSTS to the names")
	p := start(t, append(env, "AFTERWRITE_DASHBOARD_HOSTS=127.0.0.1"), "dashboard")
	status, _ := get(t, p.url(t)+"/dead")
	require.Equal(t, http.StatusForbidden, status, "no proxy has said who it is")
	p.stop(t)
}

func TestTheAPIAndTheWorkerStartWithoutPostgres(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"api", "worker"} {
		p := start(t, append([]string{"REDIS_URL=" + localtest.RedisURL(t), noPostgres}, anywhere...), name)

		status, body := get(t, p.url(t)+"/readyz")
		require.Equal(t, http.StatusOK, status)
		require.Contains(t, body, `"postgres":"unreachable"`)
		require.NotContains(t, body, "127.0.0.1")

		p.stop(t)
		require.Contains(t, p.out.String(), "correct DATABASE_URL")
		require.NotContains(t, p.out.String(), "hunter2")
	}
}

func TestAProcessDoesNotStartOnAnUnfitRedis(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{Args: []string{"--maxmemory-policy", "allkeys-lru"}})
	env := append([]string{"REDIS_URL=" + server.URL(), noPostgres}, anywhere...)
	for _, name := range []string{"api", "worker", "scheduler", "dashboard"} {
		require.Contains(t, start(t, env, name).oneLine(t), "redis-cli CONFIG SET maxmemory-policy noeviction")
	}
}

func TestATakenPortIsToldAtOnce(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	// There is no Redis: the port is looked at before the wait for one.
	env := []string{"REDIS_URL=redis://127.0.0.1:1/0", "AFTERWRITE_WORKER_ADDR=" + taken.Addr().String(), noPostgres}

	line := start(t, env, "worker").oneLine(t)

	require.Contains(t, line, "set AFTERWRITE_WORKER_ADDR to another address")
}

func TestWhatIsMissingInTheEnvironmentIsNamed(t *testing.T) {
	t.Parallel()
	require.Contains(t, start(t, nil, "api").oneLine(t), "REDIS_URL is not set")
	require.Contains(t, start(t, []string{"REDIS_URL=redis://127.0.0.1:1/0"}, "api").oneLine(t), "DATABASE_URL is not set")
	require.Contains(t, start(t, []string{"REDIS_URL=http://x"}, "scheduler").oneLine(t), "REDIS_URL cannot be used")
	require.Contains(t, start(t, []string{"AFTERWRITE_SHARDS=0"}, "up").oneLine(t), `AFTERWRITE_SHARDS must be a whole number of 1 to 4096, such as 16; it is "0"`)
}

func TestAProcessThatWaitsForRedisCanBeStopped(t *testing.T) {
	t.Parallel()
	p := start(t, append([]string{"REDIS_URL=redis://127.0.0.1:1/0"}, anywhere...), "scheduler")
	p.find(t, "(waiting for redis)")
	p.stop(t)
}

// What docker-compose.yml says must be a user, whose password is the one in its comment.
func TestTheComposeFileHasAUser(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docker-compose.yml")
	require.NoError(t, err)
	found := regexp.MustCompile(`AFTERWRITE_DASHBOARD_USERS: (\S+)\n`).FindSubmatch(text)
	require.NotNil(t, found)
	users, err := auth.ParseUsers(strings.ReplaceAll(string(found[1]), "$$", "$"))
	require.NoError(t, err)
	require.Len(t, users, 1)
	require.Equal(t, auth.Viewer, users[0].Role, "its password is published")
	require.Contains(t, string(text), "has the password `afterwrite on my machine`")
	require.NoError(t, bcrypt.CompareHashAndPassword([]byte(users[0].Hash), []byte("afterwrite on my machine")))
}
