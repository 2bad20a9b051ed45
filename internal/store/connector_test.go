package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestSessionsHaveANameAndTimeouts(t *testing.T) {
	t.Parallel()
	s := setup(t)
	require.Equal(t, "afterwrite", get[string](t, s, "SHOW application_name"))
	require.Equal(t, "10s", get[string](t, s, "SHOW statement_timeout"))
	require.Equal(t, "1s", get[string](t, s, "SHOW lock_timeout"))
}

func TestSessionsHaveNoPreparedStatements(t *testing.T) {
	t.Parallel()
	s := open(t, localtest.PostgresURL(t, migrateTemplate), Options{MaxConns: 1})
	upsert(t, s, row("k", 1, 1))
	has(t, s, row("k", 1, 1))
	require.Zero(t, get[int](t, s, "SELECT count(*) FROM pg_prepared_statements"))
}

func TestTimeoutsAreOmittedIfAPoolerRefusesThem(t *testing.T) {
	t.Parallel()
	log := &logBuffer{}
	refuse := func(startup []byte) (refusal string) {
		if bytes.Contains(startup, []byte(settingStatementTimeout)) {
			return "unsupported startup parameter: " + settingStatementTimeout // the text of PgBouncer 1.18
		}
		return ""
	}
	s := open(t, proxy(t, localtest.PostgresURL(t, migrateTemplate), refuse), Options{Logger: log.logger()})
	upsert(t, s, row("k", 1, 1))
	has(t, s, row("k", 1, 1))
	require.Equal(t, "0", get[string](t, s, "SHOW statement_timeout"))
	require.Equal(t, 1, log.count("pooler"))
}

func TestTheNextCallerGetsTheLoginOfOneThatGaveUp(t *testing.T) {
	t.Parallel()
	url := localtest.PostgresURL(t, migrateTemplate)
	upsert(t, open(t, url, Options{}), row("k", 1, 1))
	var logins atomic.Int64
	letGo := make(chan struct{})
	s := open(t, proxy(t, url, func([]byte) string {
		logins.Add(1)
		<-letGo
		return ""
	}), Options{})
	release := sync.OnceFunc(func() { close(letGo) })
	t.Cleanup(release)
	for range failuresToOpen - 1 {
		_, err := s.Read(soon(t, 50*time.Millisecond), []counter.Key{"k"})
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
	release()
	has(t, s, row("k", 1, 1))
	require.EqualValues(t, 1, logins.Load(), "the first caller's login is the only one")
}

// The callers that give up during a slow login open the breaker, which retires all sessions. That must not include the one that the login
// brings: with it Postgres works again, and no caller waits long enough for another.
func TestLoginThatEndsAfterTheBreakerHasOpenedIsUsed(t *testing.T) {
	t.Parallel()
	url := localtest.PostgresURL(t, migrateTemplate)
	upsert(t, open(t, url, Options{}), row("k", 1, 1))
	var logins atomic.Int64
	letGo := make(chan struct{})
	s := open(t, proxy(t, url, func([]byte) string {
		logins.Add(1)
		<-letGo
		return ""
	}), Options{})
	release := sync.OnceFunc(func() { close(letGo) })
	t.Cleanup(release)
	for range failuresToOpen {
		_, err := s.Read(soon(t, 50*time.Millisecond), []counter.Key{"k"})
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
	require.False(t, s.Available())
	release()
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		_, err := s.Read(t.Context(), []counter.Key{"k"})
		return err == nil, "the breaker is open"
	})
	require.EqualValues(t, 1, logins.Load())
}

// The server accepts the connection and never sends anything, like a host behind a firewall that drops packets.
func TestASilentHostDelaysACallOnlyUntilItsDeadline(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	s := open(t, "postgres://me@"+listener.Addr().String()+"/db?sslmode=disable", Options{})

	started := time.Now()
	_, err = s.Read(soon(t, 100*time.Millisecond), []counter.Key{"k"})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(started), 2*time.Second)

	started = time.Now()
	_, err = s.Read(t.Context(), []counter.Key{"k"})
	require.Equal(t, Outage, Classify(err), "%v", err)
	require.Less(t, time.Since(started), connectTimeout+2*time.Second, "connect_timeout covers the login")
}

func TestATransactionEndsWithItsContextIfTheServerFreezes(t *testing.T) {
	t.Parallel()
	for statement, end := range map[string]func(*sqlx.Tx) error{"COMMIT": (*sqlx.Tx).Commit, "ROLLBACK": (*sqlx.Tx).Rollback} {
		t.Run(statement, func(t *testing.T) {
			t.Parallel()
			f := startFreezer(t, localtest.PostgresURL(t, migrateTemplate), statement)
			s := open(t, f.url, Options{MaxConns: 1})
			tx, err := s.db.BeginTxx(soon(t, 3*time.Second), nil)
			require.NoError(t, err)
			_, err = tx.ExecContext(t.Context(), "SELECT 1")
			require.NoError(t, err)
			f.armed.Store(true)
			began := time.Now()
			require.Error(t, end(tx))
			require.Less(t, time.Since(began), 8*time.Second)
			require.EqualValues(t, 1, f.frozen.Load())
			has(t, s) // with another session, although there may be only one
		})
	}
}

// The transaction on the standby is over when its rows are there: what is left is its ROLLBACK. A caller must not wait for it longer than
// for the rows.
func TestAStandbyThatFreezesAfterItsRowsDoesNotHoldThemBack(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	f := startFreezer(t, p.second.URL(), "ROLLBACK")
	s := open(t, p.url, Options{ReadURL: f.url})
	upsert(t, s, row("k", 1, 1))
	served(t, s, 1)

	f.armed.Store(true)
	began, before := time.Now(), s.StandbyReads()
	reads(t, s, 1) // the first of its reads gets half of two seconds
	require.Less(t, time.Since(began), 5*time.Second)
	require.EqualValues(t, 1, f.frozen.Load())
	require.Equal(t, before+3, s.StandbyReads())
}

// proxy starts a proxy for a Postgres and returns its address. It passes each startup message to login, and refuses the session if
// login returns a reason.
func proxy(t *testing.T, databaseURL string, login func(startup []byte) (refusal string)) string {
	t.Helper()
	return listen(t, databaseURL, func(conn net.Conn, server string) { relay(conn, server, login) })
}

// freezer is a proxy for a Postgres that freezes a session: it forwards nothing any more, and answers nothing.
type freezer struct {
	url    string
	at     string       // the statement of the client at which it freezes
	armed  atomic.Bool  // it freezes the next session that sends the statement
	frozen atomic.Int64 // sessions
}

func startFreezer(t *testing.T, databaseURL, at string) *freezer {
	t.Helper()
	f := &freezer{at: at}
	f.url = listen(t, databaseURL, func(conn net.Conn, server string) {
		relay(&freezingConn{Conn: conn, by: f}, server, func([]byte) string { return "" })
	})
	return f
}

// freezingConn is the connection to a client of a freezer.
type freezingConn struct {
	net.Conn

	by *freezer
}

func (c *freezingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if bytes.Contains(p[:n], []byte(c.by.at)) && c.by.armed.CompareAndSwap(true, false) {
		c.by.frozen.Add(1)
		_, _ = io.Copy(io.Discard, c.Conn) // until the client gives up
		return 0, io.EOF
	}
	return n, err
}

// listen starts a proxy for a Postgres that calls serve for each connection, and returns its address.
func listen(t *testing.T, databaseURL string, serve func(conn net.Conn, server string)) string {
	t.Helper()
	u, err := url.Parse(databaseURL)
	require.NoError(t, err)
	server := u.Host
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	u.Host = listener.Addr().String()

	var group sync.WaitGroup
	group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			group.Go(func() { serve(conn, server) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		group.Wait()
	})
	return u.String()
}

func relay(client net.Conn, server string, login func(startup []byte) (refusal string)) {
	defer client.Close()
	var head [4]byte
	if _, err := io.ReadFull(client, head[:]); err != nil {
		return
	}
	startup := make([]byte, binary.BigEndian.Uint32(head[:])-4)
	if _, err := io.ReadFull(client, startup); err != nil {
		return
	}
	if refusal := login(startup); refusal != "" {
		message := []byte("SFATAL\x00C08P01\x00M" + refusal + "\x00\x00")
		reply := binary.BigEndian.AppendUint32([]byte{'E'}, uint32(4+len(message)))
		_, _ = client.Write(append(reply, message...))
		return
	}
	backend, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer backend.Close()
	_, _ = backend.Write(append(head[:], startup...))
	var group sync.WaitGroup
	group.Go(func() {
		_, _ = io.Copy(client, backend)
		_ = client.Close()
	})
	_, _ = io.Copy(backend, client)
	_ = backend.Close()
	group.Wait()
}
