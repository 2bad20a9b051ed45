package command

import (
	"context"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

var setUser = regexp.MustCompile(`ACL SETUSER afterwrite reset on >PASSWORD [^\n]+`)

// restrict makes a user of Redis with the line that `doctor` prints, and further rules, and returns env with this user. At the end of the
// test it checks that Redis has refused nothing to the user, unless there are further rules.
func restrict(t *testing.T, client redis.UniversalClient, name string, env []string, further ...string) []string {
	t.Helper()
	doctor := start(t, env, "doctor")
	doctor.end(t)
	line := setUser.FindString(doctor.text.String())
	require.NotEmpty(t, line, doctor.out.String())
	line = strings.NewReplacer(" afterwrite ", " "+name+" ", ">PASSWORD", ">secret", `\u003e`, ">").Replace(line)
	var words []any
	for _, word := range append(strings.Fields(line), further...) {
		words = append(words, word)
	}
	require.NoError(t, client.Do(t.Context(), words...).Err())
	t.Cleanup(func() { // the server is shared
		ctx := context.WithoutCancel(t.Context())
		refused, err := client.ACLLog(ctx, 128).Result()
		require.NoError(t, err)
		for _, entry := range refused {
			require.False(t, entry.Username == name && further == nil, "%s %s", entry.Reason, entry.Object)
		}
		require.NoError(t, client.Do(ctx, "ACL", "DELUSER", name).Err())
	})
	u, err := url.Parse(environMap(env)["REDIS_URL"])
	require.NoError(t, err)
	u.User = url.UserPassword(name, "secret")
	return append(slices.Clone(env), "REDIS_URL="+u.String()) // of a name that is there twice, exec takes the last
}

func adminOf(t *testing.T, redisURL string) redis.UniversalClient {
	t.Helper()
	client, err := cache.Connect(redisURL, 2)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return client
}

func TestAMissingPermissionIsNamed(t *testing.T) {
	t.Parallel()
	env := servers(t)
	admin := adminOf(t, environMap(env)["REDIS_URL"])
	for i, c := range []struct{ without, want string }{
		{"-zadd", "redis permissions: this user lacks +zadd: ACL SETUSER afterwrite "},
		{"-info", "redis permissions: this user lacks +info: "},
		{"-exists", "has no permissions to run the 'exists' command"},
	} {
		poor := restrict(t, admin, "poor"+strconv.Itoa(i), env, c.without)
		for _, name := range []string{"api", "worker"} {
			require.Contains(t, start(t, poor, name).oneLine(t), c.want)
		}
	}
	poor := restrict(t, admin, "poor", env, "resetkeys", "~{aw:*")
	p := start(t, poor, "doctor")
	require.Equal(t, exitFailure, p.end(t))
	require.Contains(t, p.text.String(), "this user lacks ~aw:*, ~asynq:{aw-*, ~asynq:queues, ~asynq:servers*, ~asynq:workers*, ")
	require.Contains(t, start(t, poor, "verify").oneLine(t), "`afterwrite doctor` prints the permissions that its user of Redis needs")

	// Asynq's pages read all queues of a Redis, also those of other programs.
	require.NoError(t, admin.SAdd(t.Context(), "asynq:queues", "default").Err())
	for further, want := range map[string]int{"": http.StatusInternalServerError, "~asynq:*": http.StatusOK} {
		dashboard := start(t, restrict(t, admin, "pages", env, append([]string{"+wait"}, strings.Fields(further)...)...), "dashboard")
		status, _ := get(t, dashboard.url(t)+"/asynq/api/queues")
		require.Equal(t, want, status, further)
		dashboard.stop(t)
	}

	// What is optional is a warning.
	p = start(t, restrict(t, admin, "optional", env, "-wait", "-subscribe"), "doctor")
	require.Equal(t, exitOK, p.end(t))
	require.Regexp(t, `warning +redis permissions +this user lacks \+subscribe \(for waiting for Postgres\), \+wait \(for durability=replica\)\n`, p.text.String())
}

func TestARestrictedUserOnACluster(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{Args: []string{"--cluster-enabled", "yes"}})
	admin := adminOf(t, server.URL())
	require.NoError(t, admin.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", 0, 16383).Err())
	localtest.Eventually(t, patience, func() (bool, string) {
		info, err := admin.ClusterInfo(t.Context()).Result()
		return err == nil && strings.HasPrefix(info, "cluster_state:ok"), info
	})
	env := append([]string{
		"REDIS_URL=" + strings.Replace(server.URL(), "redis://", "redis-cluster://", 1), "DATABASE_URL=" + localtest.PostgresURL(t, nil),
	}, anywhere...)
	env = restrict(t, admin, "clustered", env)
	i := install(t, env)
	i.set(t, "k", 5)
	i.succeeds(t, "flush", "--wait")
	i.succeeds(t, "doctor")
	i.succeeds(t, "verify")
	dashboard := start(t, env, "dashboard")
	for _, page := range []string{"/", "/asynq/api/queues", "/asynq/api/servers", "/asynq/api/redis_info"} {
		status, body := get(t, dashboard.url(t)+page)
		require.Equal(t, http.StatusOK, status, page+" "+body)
	}
	for _, p := range []*running{dashboard, i.api, i.worker, i.scheduler} {
		p.stop(t)
	}
}

func TestEverythingRunsBehindTLSWithClientCertificates(t *testing.T) {
	t.Parallel()
	files := localtest.NewCertificates(t)
	port, err := local.FreePort()
	require.NoError(t, err)
	server := localtest.OwnRedis(t, local.RedisOptions{Args: files.RedisArgs(strconv.Itoa(port))})
	u, err := url.Parse(server.URL())
	require.NoError(t, err)
	u.Scheme, u.Host = "rediss", "localhost:"+strconv.Itoa(port)
	env := append([]string{
		"REDIS_URL=" + u.String(), "DATABASE_URL=" + localtest.PostgresURL(t, nil),
		"AFTERWRITE_REDIS_CA=" + files.CA, "AFTERWRITE_REDIS_CERT=" + files.ClientCert, "AFTERWRITE_REDIS_KEY=" + files.ClientKey,
	}, anywhere...)
	i := install(t, env)
	i.set(t, "k", 5)
	i.succeeds(t, "flush", "--wait")
	for _, command := range [][]string{{"doctor"}, {"status", "--for", "0s"}, {"verify"}, {"dead", "list"}, {"migrate", "--status"}} {
		i.succeeds(t, command...)
	}
	dashboard := start(t, env, "dashboard")
	status, _ := get(t, dashboard.url(t)+"/asynq/api/queues") // Asynqmon's own client
	require.Equal(t, http.StatusOK, status)
	for _, p := range []*running{dashboard, i.api, i.worker, i.scheduler} {
		p.stop(t)
	}

	line := start(t, append(env, "AFTERWRITE_REDIS_CA=", "AFTERWRITE_REDIS_CERT=", "AFTERWRITE_REDIS_KEY="), "verify").oneLine(t)
	require.Contains(t, line, "has a certificate that is not trusted")
	require.Contains(t, line, "set AFTERWRITE_REDIS_CA")
}
