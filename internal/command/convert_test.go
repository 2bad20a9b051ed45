package command

import (
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/health"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// ofLayout2 returns the environment of a Redis that the previous version has used, with one counter that Postgres does not have.
func ofLayout2(t *testing.T) (env []string, client redis.UniversalClient) {
	t.Helper()
	env = servers(t)
	url := localtest.RedisURL(t)
	client, err := cache.Connect(url, 2)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	tag := "{aw:" + counter.Key("k").Shard(64).String() + "}"
	now := time.Now()
	pipe := client.Pipeline()
	pipe.HSet(t.Context(), "aw:meta", "layout", "2", "AFTERWRITE_SHARDS", "64", "birth", "B")
	pipe.Set(t.Context(), tag+":c:k", "7 2 e0123abcd"+strconv.FormatInt(now.UnixMicro(), 10)+" b0 w0", 0)
	pipe.ZAdd(t.Context(), tag+":dirty", redis.Z{Score: float64(now.UnixMilli()), Member: "k"})
	_, err = pipe.Exec(t.Context())
	require.NoError(t, err)
	return append(env, "REDIS_URL="+url), client
}

func TestMigrateConvertsRedisToo(t *testing.T) {
	t.Parallel()
	env, client := ofLayout2(t)
	said := func(args ...string) string {
		p := start(t, env, args...)
		require.Equal(t, exitOK, p.end(t), p.out.String())
		return p.text.String()
	}
	require.Contains(t, said("migrate", "--status"), "redis: this Redis holds counters of layout 2")
	require.Contains(t, start(t, env, "flush").oneLine(t), "run `afterwrite migrate`")

	require.Contains(t, said("migrate"), "redis: converted to layout 3 with 16 shards: 1 counters, 0 idempotency records\n")
	require.Contains(t, said("migrate"), "redis: layout 3, 16 shards: up to date\n")
	require.Contains(t, said("migrate", "--status"), "redis: layout 3, 16 shards: up to date\n")
	require.Contains(t, said("flush"), "dirty: 1,")
	require.NoError(t, client.HSet(t.Context(), "aw:meta", "layout", "4").Err())
	require.Contains(t, start(t, env, "migrate").oneLine(t), "from a newer version")
}

func TestMigrateFailsWhereRedisCannotBeConverted(t *testing.T) {
	t.Parallel()
	env, client := ofLayout2(t)
	beating := time.Now().Add(time.Minute).UnixMilli()
	require.NoError(t, client.HSet(t.Context(), health.HeartbeatKey, "old",
		strconv.FormatInt(beating, 10)+` {"role":"worker","host":"h","pid":9,"version":"v1"}`).Err())
	require.Contains(t, start(t, env, "migrate").oneLine(t), "worker v1 on h (pid 9): stop them")
}

func TestTheOthersWaitForAWorkerThatConverts(t *testing.T) {
	t.Parallel()
	env, _ := ofLayout2(t)
	p := start(t, append(env, "AFTERWRITE_API_ADDR=127.0.0.1:0"), "api")
	addr := p.find(t, `msg=listening .*address=(\S+)`)
	status, body := get(t, "http://"+addr+"/readyz")
	require.Equal(t, http.StatusServiceUnavailable, status, body)
	status, _ = get(t, "http://"+addr+"/healthz")
	require.Equal(t, http.StatusOK, status)
	status, _ = get(t, "http://"+addr+"/v1/counters/k")
	require.Equal(t, http.StatusServiceUnavailable, status)

	w := start(t, append(env, "AFTERWRITE_WORKER_ADDR=127.0.0.1:0"), "worker", "--drain")
	require.Equal(t, exitOK, w.end(t), w.out.String())
	addr = p.find(t, `(?s)layout 3 now.*msg=listening .*address=(\S+)`)
	status, body = get(t, "http://"+addr+"/v1/counters/k")
	require.Equal(t, http.StatusOK, status)
	require.JSONEq(t, `{"key":"k","value":7,"version":2,"synced":true}`, body)
}

func TestTheShardsThatRedisHasAreTakenOverUnlessOthersAreSet(t *testing.T) {
	t.Parallel()
	env, _ := ofLayout2(t)
	convert := start(t, append(env, "AFTERWRITE_SHARDS=40"), "migrate")
	require.Equal(t, exitOK, convert.end(t), convert.out.String())

	p := start(t, append(env, "AFTERWRITE_WORKER_ADDR=127.0.0.1:0"), "worker", "--drain")
	require.Equal(t, exitOK, p.end(t), p.out.String())
	flush := start(t, env, "flush")
	require.Equal(t, exitOK, flush.end(t), flush.out.String())
	require.Contains(t, flush.out.String(), "dirty: 0")
	other := slices.Concat(env, []string{"AFTERWRITE_SHARDS=16", "AFTERWRITE_WORKER_ADDR=127.0.0.1:0"})
	require.Contains(t, start(t, other, "flush").oneLine(t), "set AFTERWRITE_SHARDS to 40")
	require.Contains(t, start(t, other, "worker").oneLine(t), "set AFTERWRITE_SHARDS to 40")
}
