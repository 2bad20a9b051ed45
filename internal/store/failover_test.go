package store

import (
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/mapping"
)

// pair is a primary with a streaming replica.
type pair struct {
	first, second *local.Postgres
	url           string // has both
}

func startPair(t *testing.T) pair {
	t.Helper()
	first := localtest.OwnPostgres(t, local.PostgresOptions{Args: []string{"-c", "synchronous_commit=on"}})
	require.NoError(t, MigrateURL(t.Context(), first.URL()))
	second := localtest.Standby(t, first)
	u, err := url.Parse(first.URL())
	require.NoError(t, err)
	u.Host += "," + second.Addr()
	u.RawQuery += "&target_session_attrs=read-write"
	return pair{first: first, second: second, url: u.String()}
}

// caughtUp waits until the standby has replayed all that the primary has committed.
func (p pair) caughtUp(t *testing.T, first, second *Store) {
	t.Helper()
	position := get[string](t, first, "SELECT pg_current_wal_insert_lsn()::text")
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		return get[bool](t, second, "SELECT coalesce(pg_last_wal_replay_lsn() >= $1::pg_lsn, false)", position), "the standby lags"
	})
}

// idle opens n sessions of s, which stay in its pool.
func idle(t *testing.T, s *Store, n int) {
	t.Helper()
	var sleeping errgroup.Group
	for range n {
		sleeping.Go(func() error {
			_, err := s.db.ExecContext(t.Context(), "SELECT pg_sleep(0.2)")
			return err
		})
	}
	require.NoError(t, sleeping.Wait())
	require.Equal(t, n, s.db.Stats().Idle)
}

// untilAccepted upserts a row until that succeeds, and returns how long it took, and how many attempts failed.
func untilAccepted(t *testing.T, s *Store, r counter.Row, within time.Duration) (took time.Duration, failed int) {
	t.Helper()
	began := time.Now()
	localtest.Eventually(t, within, func() (bool, string) {
		_, err := s.Upsert(t.Context(), []counter.Row{r})
		require.NotEqual(t, Refused, Classify(err), "%v", err)
		if err != nil {
			failed++
		}
		return err == nil, ""
	})
	return time.Since(began), failed
}

func TestAStoreFollowsAPromotion(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, primary *local.Postgres, direct *Store){
		"killed": func(_ *testing.T, primary *local.Postgres, _ *Store) { primary.Kill() },
		"frozen": freezeAll,
		"read-only": func(t *testing.T, _ *local.Postgres, direct *Store) { // as managed services demote a primary
			t.Helper()
			exec(t, direct, "ALTER SYSTEM SET default_transaction_read_only = on")
			exec(t, direct, "SELECT pg_reload_conf()")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startPair(t)
			s := open(t, p.url, Options{MaxConns: 4, StatementTimeout: time.Second})
			upsert(t, s, row("k", 1, 1))
			first, second := open(t, p.first.URL(), Options{}), open(t, p.second.URL(), Options{})
			p.caughtUp(t, first, second)
			idle(t, s, 4)

			end(t, p.first, first)
			require.NoError(t, p.second.Promote(t.Context()))
			// A call that is in flight ends after the statement timeout and 2 s, and a login on a frozen host after 3 s.
			took, failed := untilAccepted(t, s, row("k", 2, 2), 12*time.Second)
			t.Logf("%s: written %v after the promotion", name, took)
			if name == "read-only" {
				require.Equal(t, 1, failed, "the first failure retires the other sessions")
			}
			has(t, s, row("k", 2, 2))
			info, err := s.Info(t.Context())
			require.NoError(t, err)
			require.Equal(t, p.second.Addr(), info.Address)

			// No session of the old primary is left, and a new one does not wait for it.
			began := time.Now()
			idle(t, s, 4)
			var reached []string
			for range 4 {
				reached = append(reached, get[string](t, s, "SELECT inet_server_port()::text"))
			}
			_, port, err := net.SplitHostPort(p.second.Addr())
			require.NoError(t, err)
			require.Equal(t, strings.Repeat(port+" ", 4), strings.Join(reached, " ")+" ")
			require.Less(t, time.Since(began), connectTimeout)
		})
	}
}

// The time limit of the connection may end just before the one of the call. In either case all sessions of a silent server are useless.
func TestServerThatDoesNotAnswerHasNoSessionsLeft(t *testing.T) {
	t.Parallel()
	s := open(t, localtest.PostgresURL(t, migrateTemplate), Options{StatementTimeout: time.Minute})
	s.logins.limit = time.Second // before the first login
	idle(t, s, 3)
	_, err := s.db.ExecContext(t.Context(), "SELECT pg_sleep(30)")
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	next, err := s.db.Conn(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, next.Close()) })
	require.NoError(t, next.Raw(func(conn any) error {
		require.Equal(t, int64(1), conn.(*session).generation, "it is a new one")
		return nil
	}))
}

// freezeAll stops every process of a server until the test ends.
func freezeAll(t *testing.T, server *local.Postgres, direct *Store) {
	t.Helper()
	var pids []int
	require.NoError(t, direct.db.SelectContext(t.Context(), &pids, "SELECT pid FROM pg_stat_activity"))
	for _, pid := range append(pids, server.Pid()) {
		require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP), strconv.Itoa(pid))
		t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	}
}

// A standby refuses the BEGIN of a transaction with "feature not supported", a code that is otherwise about a row.
func TestAStandbyIsAnOutageAlsoForMappedCounters(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	mappings, err := mapping.Parse([]byte(mappingFile))
	require.NoError(t, err)
	first, second := open(t, p.first.URL(), Options{}), open(t, p.second.URL(), Options{Mappings: mappings, MaxConns: 1})
	exec(t, first, mappedTables)
	p.caughtUp(t, first, second)
	for range failuresToOpen {
		_, err = second.UpsertUnlocked(t.Context(), []counter.Row{counted("post:7:likes", 0, 3, 3)})
		require.Equal(t, Outage, Classify(err), "%v", err)
	}
	require.False(t, second.Available())
	require.NoError(t, p.second.Promote(t.Context()))
	untilBack(t, second)
	upsertMapped(t, second, counted("post:7:likes", 0, 3, 3))
}
