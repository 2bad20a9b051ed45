package localtest_test

import (
	"context"
	"database/sql"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestMain(m *testing.M) { localtest.Main(m) }

func TestEveryTestHasAnEmptyRedisOfItsOwn(t *testing.T) {
	t.Parallel()
	for i := range 20 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			client := localtest.Redis(t)
			require.Zero(t, client.DBSize(t.Context()).Val())
			require.NoError(t, client.Set(t.Context(), "k", i, 0).Err())
			got, err := client.Get(t.Context(), "k").Int()
			require.NoError(t, err)
			require.Equal(t, i, got)
		})
	}
}

var filled atomic.Int32

func fill(url string) error {
	filled.Add(1)
	db, err := sql.Open("postgres", url)
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.Exec("CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t VALUES (1)")
	return err
}

func TestEveryTestHasAPostgresOfItsOwn(t *testing.T) {
	t.Parallel()
	t.Cleanup(func() { require.EqualValues(t, 1, filled.Load(), "the template is filled once") })
	for i := range 8 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			db := open(t, localtest.PostgresURL(t, fill))
			_, err := db.ExecContext(t.Context(), "INSERT INTO t VALUES (2)") // a second insert in the same table would fail
			require.NoError(t, err)
		})
	}
}

func TestPostgresWithoutTemplateIsEmpty(t *testing.T) {
	t.Parallel()
	db := open(t, localtest.PostgresURL(t, nil))
	var tables int
	require.NoError(t, db.QueryRow("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").Scan(&tables))
	require.Zero(t, tables)
}

func TestOwnServersMayBeKilled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	r := localtest.OwnRedis(t, local.RedisOptions{AppendOnly: true})
	require.True(t, strings.HasPrefix(r.URL(), "redis://"))
	r.Kill()
	require.NoError(t, r.Start(ctx))

	p := localtest.OwnPostgres(t, local.PostgresOptions{})
	p.Kill()
	require.NoError(t, p.Start(ctx))
	require.NoError(t, open(t, p.URL()).PingContext(ctx))
}

func TestOwnServersLeaveNoData(t *testing.T) {
	t.Parallel()
	var dirs []string
	t.Cleanup(func() { // runs after the cleanups of the servers
		require.Len(t, dirs, 2)
		for _, dir := range dirs {
			require.NoDirExists(t, dir)
		}
	})
	dirs = append(dirs, localtest.OwnRedis(t, local.RedisOptions{}).Dir(), localtest.OwnPostgres(t, local.PostgresOptions{}).Dir())
}

func TestEventuallyWaitsForTheCondition(t *testing.T) {
	t.Parallel()
	calls := 0
	localtest.Eventually(t, time.Minute, func() (bool, string) {
		calls++
		return calls == 3, "not yet"
	})
	require.Equal(t, 3, calls)
}

func TestEventuallyFailsWithTheLastMessage(t *testing.T) {
	t.Parallel()
	failed := &recorder{TB: t}
	done := make(chan struct{})
	go func() { // Fatalf ends the goroutine
		defer close(done)
		localtest.Eventually(failed, time.Millisecond, func() (bool, string) { return false, "3 keys are dirty" })
	}()
	<-done
	require.Equal(t, "not within 1ms: 3 keys are dirty", failed.message)
}

func open(t *testing.T, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("postgres", url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// recorder is a testing.TB that records the text of its failure.
type recorder struct {
	testing.TB

	message string
}

func (*recorder) Helper() {}

func (r *recorder) Fatalf(format string, args ...any) {
	r.message = fmt.Sprintf(format, args...)
	runtime.Goexit()
}
