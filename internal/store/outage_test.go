package store

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// ownServer returns a migrated server that the test may break, and a Store for it.
func ownServer(t *testing.T, options Options) (*local.Postgres, *Store) {
	t.Helper()
	server := localtest.OwnPostgres(t, local.PostgresOptions{Args: []string{"-c", "synchronous_commit=on"}}) // survives Kill
	require.NoError(t, MigrateURL(t.Context(), server.URL()))
	return server, open(t, server.URL(), options)
}

// untilOpen upserts until the breaker is open. Each call must fail with an outage within bound.
func untilOpen(t *testing.T, s *Store, bound time.Duration) {
	t.Helper()
	for range failuresToOpen {
		started := time.Now()
		_, err := s.Upsert(t.Context(), []counter.Row{row("k", 1, 1)})
		require.Equal(t, Outage, Classify(err), "%v", err)
		require.Less(t, time.Since(started), bound)
	}
	require.False(t, s.Available())
	require.False(t, s.Up())

	started := time.Now()
	_, err := s.Upsert(t.Context(), []counter.Row{row("k", 1, 1)})
	require.ErrorIs(t, err, ErrUnavailable)
	require.Equal(t, Outage, Classify(err))
	require.Less(t, time.Since(started), 100*time.Millisecond, "with an open breaker, calls fail at once")
}

func untilBack(t *testing.T, s *Store) {
	t.Helper()
	localtest.Eventually(t, 15*time.Second, func() (bool, string) {
		err := s.Ping(t.Context())
		return err == nil && s.Available() && s.Up(), fmt.Sprint(err)
	})
	upsert(t, s, row("after", 1, 1))
	exec(t, s, "DELETE FROM counters WHERE key = 'after'")
}

func TestStoppedServerOpensTheBreakerAndARestartClosesIt(t *testing.T) {
	t.Parallel()
	log := &logBuffer{}
	server, s := ownServer(t, Options{Logger: log.logger()})
	upsert(t, s, row("before", 1, 1))
	for range 2 {
		require.NoError(t, server.Stop(t.Context()))
		untilOpen(t, s, 5*time.Second)
		require.NoError(t, server.Start(t.Context()))
		untilBack(t, s)
	}
	has(t, s, row("before", 1, 1))
	require.Equal(t, 2, log.count("postgres is unavailable"), "each outage is logged once")
	require.Equal(t, 2, log.count("postgres is available again"))
}

func TestKilledServerIsAnOutage(t *testing.T) {
	t.Parallel()
	server, s := ownServer(t, Options{})
	upsert(t, s, row("before", 1, 1))
	server.Kill()
	untilOpen(t, s, 5*time.Second)
	require.NoError(t, server.Start(t.Context()))
	untilBack(t, s)
	has(t, s, row("before", 1, 1))
}

func TestOpenDoesNotNeedAServer(t *testing.T) {
	t.Parallel()
	server := localtest.OwnPostgres(t, local.PostgresOptions{})
	require.NoError(t, MigrateURL(t.Context(), server.URL()))
	require.NoError(t, server.Stop(t.Context()))
	s := open(t, server.URL(), Options{})
	require.True(t, s.Available())
	untilOpen(t, s, 5*time.Second)
	require.NoError(t, server.Start(t.Context()))
	untilBack(t, s)
}

// A frozen server keeps its connections, and the kernel accepts new ones, but the server never answers.
func TestAFrozenServerDelaysACallOnlyUntilItsDeadline(t *testing.T) {
	t.Parallel()
	server, s := ownServer(t, Options{MaxConns: 1})
	thaw := freeze(t, server, s)

	for range failuresToOpen {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		started := time.Now()
		_, err := s.Read(ctx, []counter.Key{"k"})
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, Outage, Classify(err))
		require.Less(t, time.Since(started), time.Second)
	}
	require.False(t, s.Available(), "timeouts open the breaker")
	thaw()
	untilBack(t, s)
}

func TestAFrozenServerDelaysACallOnlyUntilTheStatementTimeout(t *testing.T) {
	t.Parallel()
	server, s := ownServer(t, Options{MaxConns: 1, StatementTimeout: 100 * time.Millisecond})
	thaw := freeze(t, server, s)
	untilOpen(t, s, slack+2*time.Second)
	thaw()
	untilBack(t, s)
}

func TestACanceledCallOnAFrozenServerReturnsAtOnceAndDoesNotOpenTheBreaker(t *testing.T) {
	t.Parallel()
	server, s := ownServer(t, Options{MaxConns: 1})
	thaw := freeze(t, server, s)
	for range 2 * failuresToOpen {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := s.Read(ctx, []counter.Key{"k"})
			done <- err
		}()
		localtest.Eventually(t, 5*time.Second, func() (bool, string) {
			return s.db.Stats().InUse == 1, "no connection in use"
		})
		cancel()
		select {
		case err := <-done:
			require.Equal(t, Canceled, Classify(err), "%v", err)
		case <-time.After(2 * time.Second):
			require.Fail(t, "the call did not end when its context was canceled")
		}
	}
	require.True(t, s.Available())
	require.True(t, s.Up())
	thaw()
	untilBack(t, s)
}

func TestReadOnlyServerIsAnOutageAndItsConnectionsAreDropped(t *testing.T) {
	t.Parallel()
	writer := setup(t)
	exec(t, writer, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$")
	s := open(t, writer.url, Options{MaxConns: 1}) // its sessions are read-only; the writer's older session is not
	untilOpen(t, s, time.Second)
	exec(t, writer, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I RESET default_transaction_read_only', current_database()); END $$")
	untilBack(t, s) // on a new session, since the old one stays read-only
}

func TestAMissingTableIsClassifiedAsOperator(t *testing.T) {
	t.Parallel()
	log := &logBuffer{}
	s := open(t, localtest.PostgresURL(t, migrateTemplate), Options{Logger: log.logger()})
	exec(t, s, "ALTER TABLE counters RENAME TO elsewhere")
	for range failuresToOpen {
		_, err := s.Upsert(t.Context(), []counter.Row{row("k", 1, 1)})
		require.Equal(t, Operator, Classify(err), "%v", err)
	}
	require.False(t, s.Available(), "it opens the breaker like an outage")
	require.Equal(t, 1, log.count("level=ERROR"), "but is logged as an error")
	exec(t, s, "ALTER TABLE elsewhere RENAME TO counters")
	untilBack(t, s)
}

func TestTheServerEndsStatementsThatWaitOrRunTooLong(t *testing.T) {
	t.Parallel()
	holder := setup(t)
	s := open(t, holder.url, Options{StatementTimeout: 400 * time.Millisecond})
	tx, err := holder.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer func() { _ = tx.Rollback() }()
	_, err = tx.ExecContext(t.Context(), "LOCK TABLE counters IN ACCESS EXCLUSIVE MODE")
	require.NoError(t, err)

	_, err = s.Upsert(t.Context(), []counter.Row{row("k", 1, 1)})
	require.Equal(t, "55P03", sqlState(err), "lock_timeout: %v", err)
	require.Equal(t, Outage, Classify(err))

	_, err = s.db.ExecContext(t.Context(), "SELECT pg_sleep(60)")
	require.Equal(t, stateQueryCanceled, sqlState(err), "statement_timeout: %v", err)
}

// freeze stops the server and the only session of s, until the test ends or thaw is called.
func freeze(t *testing.T, server *local.Postgres, s *Store) (thaw func()) {
	t.Helper()
	session := get[int](t, s, "SELECT pg_backend_pid()")
	thaw = sync.OnceFunc(func() {
		for _, pid := range []int{server.Pid(), session} {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
	})
	t.Cleanup(thaw) // a stopped server cannot shut down
	for _, pid := range []int{server.Pid(), session} {
		require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	}
	return thaw
}
