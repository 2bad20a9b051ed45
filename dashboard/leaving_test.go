package dashboard_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// The operator closes the page after the first of three discards. The others are still made, and each is recorded.
func TestSeveralDiscardsContinueWithoutTheVisitor(t *testing.T) {
	t.Parallel()
	d := setup(t)
	for _, key := range []counter.Key{"a", "b", "c"} {
		d.bury(t, key, 17, "no")
	}
	form := url.Values{"key": {"a", "b", "c"}, "confirm": {"yes"}}
	for _, key := range []counter.Key{"a", "b", "c"} {
		dead, err := d.operator.Get(t.Context(), key)
		require.NoError(t, err)
		require.NoError(t, dead.PostgresErr)
		form.Add("shown", dead.Redis.String()+" | "+dead.Postgres.String())
	}
	release := d.holdEntries(t, "b")

	visit, leave := context.WithCancel(t.Context())
	r := httptest.NewRequestWithContext(visit, http.MethodPost, "http://127.0.0.1/dead/discard", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	r.RemoteAddr = "127.0.0.1:1234"
	answered := make(chan int, 1)
	go func() {
		w := httptest.NewRecorder()
		d.handler.ServeHTTP(w, r)
		answered <- w.Code
	}()
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		var waiting bool
		err := d.db.QueryRowContext(t.Context(), `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))`).Scan(&waiting)
		return err == nil && waiting, "b is not discarded yet"
	})
	leave()
	release()

	require.Equal(t, http.StatusSeeOther, <-answered)
	count, err := d.operator.Count(t.Context())
	require.NoError(t, err)
	require.Zero(t, count)
	noted := make(map[string]string)
	for _, a := range d.lastActions(t) {
		require.NotNil(t, a.Outcome, a.Target)
		require.False(t, a.Failed, *a.Outcome)
		noted[a.Target] = *a.Outcome
	}
	require.Len(t, noted, 4)
	require.Equal(t, "discarded 3, kept 0", noted["3: a, b, c"])
	for _, key := range []string{"a", "b", "c"} {
		require.Contains(t, noted[key], "discarded 17 (version")
	}
}

// holdEntries blocks audit log entries for the target until release is called.
func (d *testBundle) holdEntries(t *testing.T, target string) (release func()) {
	t.Helper()
	for _, statement := range []string{
		`CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS
			$$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$`,
		`CREATE TRIGGER hold BEFORE INSERT ON counters_actions FOR EACH ROW WHEN (NEW.target = '` + target + `') EXECUTE FUNCTION hold()`,
	} {
		_, err := d.db.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
	holder, err := d.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = holder.ExecContext(t.Context(), `SELECT pg_advisory_xact_lock(1)`)
	require.NoError(t, err)
	return func() { require.NoError(t, holder.Rollback()) }
}
