package store

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// reads requires that every way of reading returns value for the counter k, the only one.
func reads(t *testing.T, s *Store, value int64) {
	t.Helper()
	want := row("k", value, value)
	rows, err := s.Read(soon(t, 2*time.Second), []counter.Key{"k"})
	require.NoError(t, err)
	require.Equal(t, map[counter.Key]counter.Row{"k": want}, rows)
	listed, _, err := s.List(t.Context(), "", "", 10)
	require.NoError(t, err)
	require.Equal(t, []counter.Row{want}, listed)
	keys, _, err := s.Top(t.Context(), "", 10)
	require.NoError(t, err)
	require.Equal(t, []counter.Key{"k"}, keys)
}

// served waits until the standby serves reads, and requires that they return value.
func served(t *testing.T, s *Store, value int64) {
	t.Helper()
	localtest.Eventually(t, 15*time.Second, func() (bool, string) {
		before := s.StandbyReads()
		reads(t, s, value)
		return s.StandbyReads() == before+3, "the standby does not serve reads"
	})
}

// asUser returns a URL with another user, whose password is x.
func asUser(t *testing.T, user, databaseURL string) string {
	t.Helper()
	_, rest, found := strings.Cut(databaseURL, "@")
	require.True(t, found)
	return "postgres://" + user + ":x@" + rest
}

func TestAStandbyServesReadsUnlessItIsBehind(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	primary, standby := open(t, p.first.URL(), Options{}), open(t, p.second.URL(), Options{})
	exec(t, primary, "CREATE ROLE reader LOGIN PASSWORD 'x'")
	exec(t, primary, "GRANT USAGE ON SCHEMA afterwrite TO reader")
	exec(t, primary, "GRANT SELECT ON afterwrite.counters TO reader")
	s := open(t, asUser(t, "reader", p.url), Options{ReadURL: asUser(t, "reader", p.second.URL())})
	upsert(t, primary, row("k", 1, 1))
	served(t, s, 1)

	exec(t, standby, "SELECT pg_wal_replay_pause()")
	upsert(t, primary, row("k", 2, 2))
	before := s.StandbyReads()
	reads(t, s, 2)
	require.Equal(t, before, s.StandbyReads(), "the standby has not replayed the second version")
	require.Equal(t, int64(1), get[int64](t, standby, "SELECT value FROM counters"))
	info, err := s.Replica(t.Context())
	require.NoError(t, err)
	require.Empty(t, info.Unfit())
	require.Negative(t, info.Ahead)

	exec(t, standby, "SELECT pg_wal_replay_resume()")
	served(t, s, 2)

	require.NoError(t, p.second.Stop(t.Context()))
	reads(t, s, 2)
	require.NoError(t, p.second.Start(t.Context()))
	served(t, s, 2)
	require.NoError(t, p.second.Promote(t.Context())) // now it is another primary: its rows may differ
	upsert(t, primary, row("k", 3, 3))
	reads(t, s, 3)
	info, err = s.Replica(t.Context())
	require.NoError(t, err)
	require.Contains(t, info.Unfit(), "not a streaming standby")
}

func TestAServerThatIsNoStandbyOfThePrimaryServesNoReads(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	own := open(t, localtest.PostgresURL(t, migrateTemplate), Options{}) // of another system
	upsert(t, own, row("k", 7, 7))
	for url, reason := range map[string]string{
		own.url:                            "not a streaming standby",
		p.second.URL():                     "not a standby of the primary",
		p.second.DatabaseURL("postgres"):   "not a standby of the primary",
		"postgres://me@127.0.0.1:1/nobody": "",
	} {
		s := open(t, own.url, Options{ReadURL: url})
		reads(t, s, 7)
		require.Zero(t, s.StandbyReads())
		info, err := s.Replica(t.Context())
		if reason == "" {
			require.Error(t, err)
			continue
		}
		require.NoError(t, err)
		require.Contains(t, info.Unfit(), reason, url)
	}
	s := open(t, p.url, Options{ReadURL: p.second.DatabaseURL("postgres")})
	info, err := s.Replica(t.Context())
	require.NoError(t, err)
	require.Contains(t, info.Unfit(), "another database")
}

// A standby that follows an old timeline may have replayed further than the primary has written, but other rows.
func TestAStandbyOfAnOldTimelineServesNoReads(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	third := localtest.Standby(t, p.first)
	require.NoError(t, p.second.Promote(t.Context()))
	first, s := open(t, p.first.URL(), Options{}), open(t, p.second.URL(), Options{ReadURL: third.URL()})
	upsert(t, s, row("k", 1, 1))
	exec(t, first, "INSERT INTO counters (key, value, version, updated_at) SELECT 'other' || n, 0, 1, now() FROM generate_series(1, 1000) n")
	p.caughtUp(t, first, open(t, third.URL(), Options{}))
	info, err := s.Replica(t.Context())
	require.NoError(t, err)
	require.Positive(t, info.Ahead, "its position is beyond the primary's")
	require.Contains(t, info.Unfit(), "since the last failover")
	reads(t, s, 1)
	require.Zero(t, s.StandbyReads())
}
