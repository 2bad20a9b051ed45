package load_test

import (
	"bytes"
	"database/sql"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/proof/bench/load"
	"github.com/afterwrite/afterwrite/proof/world"
)

// peer is a running peer of proof/bench/peer with its own databases.
type peer struct {
	*load.Process

	worker *load.Process // naive-worker; nil for other peers
	db     *sql.DB
}

func startPeer(t *testing.T, dir, name string) peer {
	t.Helper()
	redisURL, databaseURL := localtest.RedisURL(t), localtest.PostgresURL(t, migrated)
	start := func(name string) *load.Process {
		p, err := load.StartPeer(t.Context(), dir, name, redisURL, databaseURL)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, p.Stop()) })
		return p
	}
	p := peer{Process: start(name)}
	if name == "naive" {
		p.worker = start("naive-worker")
	}
	db, err := sql.Open("postgres", databaseURL)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	p.db = db
	return p
}

// increment increments key k, and returns the status and the body of the answer.
func (p peer) increment(t *testing.T, body string) (int, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Post(p.URL+"/v1/counters/k/increment", "application/json", bytes.NewBufferString(body))
	require.NoError(t, err)
	defer r.Body.Close()
	require.NotEmpty(t, r.Header.Get("X-Request-ID"))
	text, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return r.StatusCode, string(text)
}

// rows returns the sums of the values and versions of all rows except that of key k.
func (p peer) rows(t *testing.T) (values, versions int64) {
	t.Helper()
	err := p.db.QueryRow("SELECT coalesce(sum(value), 0), coalesce(sum(version), 0) FROM counters WHERE key <> 'k'").Scan(&values, &versions)
	require.NoError(t, err)
	return values, versions
}

// drained waits until no task of naive is left.
func (p peer) drained(t *testing.T) {
	t.Helper()
	if p.worker == nil {
		return
	}
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		left, err := p.worker.Left(t.Context())
		require.NoError(t, err)
		return left == 0, "tasks are left"
	})
}

func TestPeersAnswerCorrectlyAndLoseNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, load.Build(t.Context(), dir))
	for name, answers := range map[string][2]string{
		"noop":    {`{"key":"k","value":2,"version":1,"synced":false}`, `{"key":"k","value":3,"version":1,"synced":false}`},
		"direct":  {`{"key":"k","value":2,"version":1,"synced":true}`, `{"key":"k","value":5,"version":2,"synced":true}`},
		"through": {`{"key":"k","value":2,"version":1,"synced":true}`, `{"key":"k","value":5,"version":2,"synced":true}`},
		"naive":   {`{"key":"k","value":2,"version":0,"synced":false}`, `{"key":"k","value":5,"version":0,"synced":false}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testPeer(t, startPeer(t, dir, name), answers, name == "noop")
		})
	}
}

func testPeer(t *testing.T, p peer, answers [2]string, countsNothing bool) {
	t.Helper()
	for i, body := range []string{`{"by":2}`, `{"by":3}`} {
		status, answer := p.increment(t, body)
		require.Equal(t, http.StatusOK, status)
		require.JSONEq(t, answers[i], answer)
	}
	status, _ := p.increment(t, `{"by":"x"}`)
	require.Equal(t, http.StatusBadRequest, status)

	r, err := load.Open(t.Context(), load.OpenSpec{
		Rate: 300, URL: p.URL, Space: 100, Connections: 10, Duration: 500 * time.Millisecond,
	})
	require.NoError(t, err)
	require.Zero(t, r.Failed)
	p.drained(t)
	values, versions := p.rows(t)
	if countsNothing {
		require.Zero(t, values)
		_, err := world.Get(t.Context(), p.URL+"/v1/counters/k")
		require.NoError(t, err)
		r, err = load.Open(t.Context(), load.OpenSpec{
			Rate: 300, URL: p.RedisURL, Space: 100, Connections: 10, Duration: 500 * time.Millisecond,
		})
		require.NoError(t, err)
		require.Positive(t, r.Sent)
		require.Zero(t, r.Failed)
		return
	}
	require.Equal(t, r.Sent, values)
	require.Equal(t, r.Sent, versions)
}

func TestStartPeerReportsAnEarlyExit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.Symlink("/bin/false", filepath.Join(dir, "peer")))
	_, err := load.StartPeer(t.Context(), dir, "noop", "", "")
	require.ErrorContains(t, err, "noop ended: exit status 1")
}
