package e2e_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"net/http"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/proof/world"
)

// replicated is a system with a streaming replica. Its processes have both servers in DATABASE_URL.
type replicated struct {
	*system

	standby  *local.Postgres
	database string  // its name
	replica  *sql.DB // of the standby
}

// startReplicated starts it. synchronous makes each commit wait until the standby has it.
func startReplicated(t *testing.T, synchronous bool, settings ...string) *replicated {
	t.Helper()
	r := &replicated{system: stage(t, world.Options{
		Postgres: local.PostgresOptions{Args: []string{"-c", "synchronous_commit=on"}},
	}, settings...)}
	options := local.PostgresOptions{
		Dir: filepath.Join(r.world.Dir, "standby"), Args: []string{"-c", "search_path=afterwrite,public", "-c", "synchronous_commit=on"},
	}
	var err error
	r.standby, err = r.world.Postgres.StartStandby(t.Context(), options)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.standby.Stop(context.Background())) })
	u, err := url.Parse(r.DatabaseURL)
	require.NoError(t, err)
	r.database = u.Path[1:]
	r.replica, err = sql.Open("postgres", r.standby.DatabaseURL(r.database))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.replica.Close()) })
	if synchronous {
		r.execute(t, r.DB, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
	}
	u.Host += "," + r.standby.Addr()
	u.RawQuery += "&target_session_attrs=read-write"
	r.DatabaseURL = u.String()
	r.launch(t)
	return r
}

func (r *replicated) execute(t *testing.T, db *sql.DB, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		_, err := db.ExecContext(t.Context(), statement)
		require.NoError(t, err, statement)
	}
}

// promote makes the standby the primary, and returns when it accepts writes. From now on DB is its database.
func (r *replicated) promote(t *testing.T) (at time.Time) {
	t.Helper()
	require.NoError(t, r.standby.Promote(t.Context()))
	at = time.Now()
	require.NoError(t, r.DB.Close())
	r.DB = r.replica
	return at
}

// The primary is killed under load, its synchronous standby is promoted, and the old primary comes back, but refuses to write.
func TestAPromotionUnderLoadFailsNoWrite(t *testing.T) {
	t.Parallel()
	r := startReplicated(t, true)
	r.failOver(t, r.world.Postgres.Kill, func() { require.NoError(t, r.world.Postgres.Start(t.Context())) })
}

// failOver ends the primary under load, promotes the standby, and brings the old primary back, which then refuses to write.
func (r *replicated) failOver(t *testing.T, end, back func()) {
	t.Helper()
	c := r.client()
	defer c.close()
	stop, done := make(chan struct{}), make(chan *ledger, 1)
	go func() { done <- c.load(10, 500, forever, stop) }()
	localtest.Eventually(t, 20*time.Second, func() (bool, string) { return len(r.rows(t)) > 100, "no rows yet" })
	r.execute(t, r.DB, "ALTER SYSTEM SET default_transaction_read_only = on") // from its next start or reload on

	end()
	promoted := r.promote(t)
	r.execute(t, r.DB, "ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()")
	r.awaitRows(t)
	flushing := time.Since(promoted)
	back()
	r.awaitRows(t)
	close(stop)
	l := <-done
	took := r.eventuallyClean(t, 20*time.Second)

	t.Logf("%s; flushing again %v after the promotion; clean %v after the last write", l, flushing, took)
	require.Empty(t, l.indeterminate)
	require.Empty(t, l.refused)
	r.requireExact(t, c, l)
	require.Zero(t, r.archived(t))
}

// A standby that lacks the last commits is promoted. Redis counts these writes as synced. The next flush of a counter writes its whole
// state, and verify finds the others.
func TestAPromotedStandbyThatLacksCommitsIsRepaired(t *testing.T) {
	t.Parallel()
	r := startReplicated(t, false)
	c := r.client()
	defer c.close()
	add := func(by string, keys ...string) {
		for _, key := range keys {
			c.must(t, http.MethodPost, "/v1/counters/"+key+"/increment", `{"by":`+by+`}`)
		}
		r.eventuallyClean(t, 10*time.Second)
	}
	add("1", "written", "idle", "cold")
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		var rows int
		require.NoError(t, r.replica.QueryRow("SELECT count(*) FROM counters").Scan(&rows))
		return rows == 3, "the standby lags"
	})
	r.execute(t, r.replica, "ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		var receivers int
		require.NoError(t, r.replica.QueryRow("SELECT count(*) FROM pg_stat_wal_receiver").Scan(&receivers))
		return receivers == 0, "the standby still receives"
	})
	add("10", "written", "idle", "cold", "new")
	require.Equal(t, map[string]int64{"written": 11, "idle": 11, "cold": 11, "new": 10}, r.rows(t))
	r.world.Postgres.Kill()
	r.promote(t)
	require.Equal(t, map[string]int64{"written": 1, "idle": 1, "cold": 1}, r.rows(t), "the standby lacks the last commits")

	add("100", "written")
	require.Equal(t, map[string]int64{"written": 111, "idle": 1, "cold": 1}, r.rows(t), "a flush writes the state, not what was added")
	report := r.verify(t)
	require.Equal(t, map[operate.Class]int64{operate.ClassAhead: 2, operate.ClassMissing: 1}, report.Repaired)
	r.eventuallyClean(t, 10*time.Second)
	require.Equal(t, map[string]int64{"written": 111, "idle": 11, "cold": 11, "new": 10}, r.rows(t))
}

// verify runs `afterwrite verify --repair`.
func (r *replicated) verify(t *testing.T) (report operate.Report) {
	t.Helper()
	out, err := r.Output(t.Context(), "verify", "--repair", "--json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal([]byte(out), &report))
	return report
}

// The row of a counter that was flushed and has left Redis is read while the standby has only an older version.
func TestAStandbyThatLagsBringsBackNoOldBase(t *testing.T) {
	t.Parallel()
	r := startReplicated(t, false)
	var err error
	r.api, err = r.Start(t.Context(), "api", "AFTERWRITE_DATABASE_READ_URL="+r.standby.DatabaseURL(r.database))
	require.NoError(t, err)
	c := r.client()
	defer c.close()
	c.must(t, http.MethodPost, "/v1/counters/k/increment", `{"by":1}`)
	r.eventuallyClean(t, 10*time.Second)
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		r.readCold(t, c, 1)
		return metric(t, "afterwrite_standby_reads_total", r.api) > 0, "the standby serves no reads"
	})

	r.execute(t, r.replica, "SELECT pg_wal_replay_pause()")
	c.must(t, http.MethodPost, "/v1/counters/k/increment", `{"by":10}`)
	r.eventuallyClean(t, 10*time.Second)
	r.readCold(t, c, 11)
	require.Equal(t, int64(111), *c.must(t, http.MethodPost, "/v1/counters/k/increment", `{"by":100}`).Value)
	r.eventuallyClean(t, 10*time.Second)
	require.Equal(t, map[string]int64{"k": 111}, r.rows(t))
	require.Zero(t, metric(t, "afterwrite_reconciled_keys_total", r.workers...))
}

// readCold removes the entry of the counter k, which is clean, as an eviction does, and reads the counter. On a busy machine the api may
// not get the row in time; then it is read again.
func (r *replicated) readCold(t *testing.T, c *client, value int64) {
	t.Helper()
	entries, err := r.Redis.Keys(t.Context(), "*:c:k").Result()
	require.NoError(t, err)
	require.Len(t, entries, 1)
	require.NoError(t, r.Redis.Del(t.Context(), entries...).Err())
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		got, err := c.call(http.MethodGet, "/v1/counters/k", "")
		require.NoError(t, err)
		if got.status == http.StatusServiceUnavailable {
			return false, got.Code
		}
		require.Equal(t, http.StatusOK, got.status)
		require.Equal(t, value, *got.Value)
		return true, ""
	})
}
