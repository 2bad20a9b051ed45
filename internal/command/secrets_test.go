package command

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// secret is the password of every URL below. It has what has to be percent-encoded.
const (
	secret        = "hunter2/@geheim"
	encodedSecret = "hunter2%2F%40geheim"
)

// keeps checks that nothing of the password was printed.
func (p *running) keeps(t *testing.T) {
	t.Helper()
	require.NotContains(t, p.out.String(), "hunter2")
	require.NotContains(t, p.out.String(), "geheim")
}

// guarded is a Redis that takes the secret only, and its URL.
func guarded(t *testing.T) (server *local.Redis, url string) {
	t.Helper()
	server = localtest.OwnRedis(t, local.RedisOptions{Args: []string{"--appendonly", "no"}})
	client, err := cache.Connect(server.URL(), 1)
	require.NoError(t, err)
	defer func() { require.NoError(t, client.Close()) }()
	require.NoError(t, client.ConfigSet(t.Context(), "requirepass", secret).Err())
	return server, "redis://default:" + encodedSecret + "@" + server.Addr() + "/0"
}

func TestNoPasswordIsPrintedWhenAURLIsWrong(t *testing.T) {
	t.Parallel()
	const goodRedis, badRedis = "REDIS_URL=redis://127.0.0.1:1/0", "REDIS_URL=redis://u:" + secret + "@h:port/0"
	for _, test := range []struct{ redis, postgres string }{
		{badRedis, noPostgres},
		{"REDIS_URL=redis://u:" + encodedSecret + "@127.0.0.1:1/zero", noPostgres},
		{"REDIS_URL=ftp://u:" + encodedSecret + "@h", noPostgres},
		{"REDIS_URL=redis-sentinel://u:" + encodedSecret + "@h", noPostgres},
		{goodRedis, "DATABASE_URL=postgres://u:" + secret + "@h:port/d"},
		{goodRedis, "DATABASE_URL=postgres://u:" + encodedSecret + "@127.0.0.1:1/d?sslmode=" + encodedSecret},
		{goodRedis, "DATABASE_URL=host=127.0.0.1 port=1 password=" + secret + " user"},
		{goodRedis, "DATABASE_URL=host=127.0.0.1 port=1 password='" + secret + "' sslmode=nope"},
	} {
		for _, command := range [][]string{{"api"}, {"doctor"}, {"migrate"}, {"verify"}, {"dead", "list"}} {
			if test.redis == goodRedis && command[0] == "api" {
				continue // it waits for that Redis
			}
			p := start(t, append([]string{test.redis, test.postgres, "AFTERWRITE_LOG_LEVEL=debug"}, anywhere...), command...)
			p.end(t)
			p.keeps(t)
		}
	}
}

func TestNoPasswordIsPrintedWhenPostgresRefusesIt(t *testing.T) {
	t.Parallel()
	for _, database := range []string{
		"DATABASE_URL=postgres://nobody:" + encodedSecret + "@127.0.0.1:1/d",
		"DATABASE_URL=host=127.0.0.1 port=1 dbname=d user=nobody password=" + secret,
	} {
		p := start(t, []string{database, "AFTERWRITE_LOG_LEVEL=debug"}, "migrate") // goose on lib/pq
		require.Equal(t, exitFailure, p.end(t))
		p.keeps(t)
		require.Contains(t, p.out.String(), "migrate: ")

		p = start(t, append([]string{"REDIS_URL=" + localtest.RedisURL(t), database, "AFTERWRITE_LOG_LEVEL=debug"}, anywhere...), "worker")
		url := p.url(t)
		p.find(t, "(correct DATABASE_URL)")
		get(t, url+"/readyz")
		p.stop(t)
		p.keeps(t)
	}
}

func TestNoPasswordIsPrintedWhenRedisRefusesItOrGoesAway(t *testing.T) {
	t.Parallel()
	server, url := guarded(t)
	env := append([]string{noPostgres, "AFTERWRITE_LOG_LEVEL=debug"}, anywhere...)

	p := start(t, append([]string{"REDIS_URL=" + strings.Replace(url, encodedSecret, "wrong"+encodedSecret, 1)}, env...), "worker")
	require.Equal(t, exitFailure, p.end(t))
	require.Contains(t, p.out.String(), "rejects the connection")
	p.keeps(t)

	p = start(t, append([]string{"REDIS_URL=" + url}, env...), "worker")
	address := p.url(t)
	scheduler := start(t, append([]string{"REDIS_URL=" + url}, env...), "scheduler")
	scheduler.url(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	require.NoError(t, server.Stop(ctx))
	p.find(t, "(asynq: )") // Asynq complains of what it cannot fetch
	get(t, address+"/readyz")
	get(t, address+"/metrics")
	scheduler.find(t, "(periodic tasks cannot be sent)")
	p.stop(t)
	scheduler.stop(t)
	p.keeps(t)
	scheduler.keeps(t)
}
