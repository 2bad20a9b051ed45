package local_test

import (
	"context"
	"database/sql"
	"os"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/afterwrite/afterwrite/internal/local"
)

func TestMain(m *testing.M) {
	if os.Getenv(envParent) != "" {
		parentMain()
		return
	}
	goleak.VerifyTestMain(m)
}

// dataDir returns a new data folder. It is not in t.TempDir, whose mode 0700 denies access to the user `postgres`.
func dataDir(t *testing.T) string {
	t.Helper()
	dir, err := local.TempDir("afterwrite-local-*")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir + "/data"
}

// bounded returns a context that bounds the starts and stops of one test.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func startRedis(t *testing.T, opts local.RedisOptions) *local.Redis {
	t.Helper()
	r, err := local.StartRedis(bounded(t), opts)
	require.NoError(t, err)
	t.Cleanup(func() { stop(t, r) })
	return r
}

func startPostgres(t *testing.T, opts local.PostgresOptions) *local.Postgres {
	t.Helper()
	p, err := local.StartPostgres(bounded(t), opts)
	require.NoError(t, err)
	t.Cleanup(func() { stop(t, p) })
	return p
}

// stop stops a server gracefully, since a killed postgres leaves shared memory behind.
func stop(t *testing.T, server interface {
	Stop(ctx context.Context) error
},
) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	require.NoError(t, server.Stop(ctx))
}

func redisClient(t *testing.T, r *local.Redis) *redis.Client {
	t.Helper()
	opts, err := redis.ParseURL(r.URL())
	require.NoError(t, err)
	opts.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	client := redis.NewClient(opts)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func database(t *testing.T, p *local.Postgres) *sql.DB {
	t.Helper()
	db, err := sql.Open("postgres", p.URL())
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func requireEnded(t *testing.T, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		require.FailNow(t, "the server still runs")
	}
}

// requireOneLine requires that the error for the user is one line.
func requireOneLine(t *testing.T, err error) {
	t.Helper()
	require.NotContains(t, err.Error(), "\n")
}

// contextDone returns a context that ends almost at once.
func contextDone(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, 10*time.Millisecond)
}

func openAndPing(t *testing.T, url string) error {
	t.Helper()
	db, err := sql.Open("postgres", url)
	require.NoError(t, err)
	defer db.Close()
	return db.PingContext(bounded(t))
}
