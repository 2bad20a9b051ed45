// Package e2e_test tests the built program: its processes run as in production, on a real Redis and a real Postgres, under load and
// under kill -9.
package e2e_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/proof/world"
	"github.com/afterwrite/afterwrite/proof/world/worldtest"
)

func TestMain(m *testing.M) { localtest.Main(m) }

// sweepInterval is AFTERWRITE_SWEEP_INTERVAL in all tests.
const sweepInterval = 5 * time.Second

// system holds the servers and processes of one test.
type system struct {
	*world.Stage

	world     *world.World
	inspector *asynq.Inspector

	api       *world.Process
	scheduler *world.Process
	workers   []*world.Process
}

// start starts the servers, an api, a scheduler and two workers.
func start(t *testing.T, settings ...string) *system {
	t.Helper()
	return startWith(t, "", settings...)
}

// startWith is start in a database with further tables.
func startWith(t *testing.T, tables string, settings ...string) *system {
	t.Helper()
	s := stage(t, world.Options{}, settings...)
	_, err := s.DB.Exec(tables)
	require.NoError(t, err)
	s.launch(t)
	return s
}

// stage starts the servers. settings override those of all tests.
func stage(t *testing.T, o world.Options, settings ...string) *system {
	t.Helper()
	s := &system{}
	var err error
	if o.Program == "" {
		o.Program, err = worldtest.Program()
		require.NoError(t, err)
	}
	o.Name, o.Settings = "e2e", append([]string{"AFTERWRITE_SWEEP_INTERVAL=" + sweepInterval.String()}, settings...)
	o.Restricted = o.Topology.Kind == ""
	s.world, err = world.New(t.Context(), o)
	t.Cleanup(func() {
		stopErr := s.world.Stop()
		if t.Failed() {
			s.logLogs(t)
		}
		require.NoError(t, stopErr)
		require.NoError(t, s.world.Close())
	})
	require.NoError(t, err)
	s.Stage, err = s.world.Stage(t.Context(), world.StageOptions{Name: "e2e"})
	require.NoError(t, err)
	if o.Restricted {
		t.Cleanup(func() { s.nothingRefused(t) })
	}
	s.inspector = asynq.NewInspectorFromRedisClient(s.Redis)
	return s
}

// launch starts an api, a scheduler and two workers.
func (s *system) launch(t *testing.T) {
	t.Helper()
	s.scheduler = s.run(t, "scheduler")
	s.workers = []*world.Process{s.run(t, "worker"), s.run(t, "worker")}
	s.api = s.run(t, "api")
}

// nothingRefused checks that the user of Redis had all permissions that were used, also those whose lack only the log would show.
func (s *system) nothingRefused(t *testing.T) {
	t.Helper()
	refused, err := s.Refused(context.WithoutCancel(t.Context()))
	require.NoError(t, err)
	require.Empty(t, refused)
}

// run starts a process, and waits until it is ready.
func (s *system) run(t *testing.T, sub string) *world.Process {
	t.Helper()
	p, err := s.Start(t.Context(), sub)
	require.NoError(t, err)
	return p
}

// startAgain restarts a process that was stopped or killed, and waits until it is ready.
func startAgain(t *testing.T, p *world.Process) {
	t.Helper()
	require.NoError(t, p.Start())
	require.NoError(t, p.Ready(t.Context()))
}

// logLogs prints the end of every log.
func (s *system) logLogs(t *testing.T) {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(s.world.Dir, "*.log"))
	require.NoError(t, err)
	for _, path := range logs {
		t.Logf("--- %s:\n%s", filepath.Base(path), tail(readLog(t, path), 4000))
	}
}

// readLog returns the content of a log.
func readLog(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

// metric adds up a counter or gauge over the given processes.
func metric(t *testing.T, name string, processes ...*world.Process) float64 {
	t.Helper()
	sum := 0.0
	for _, p := range processes {
		metrics, err := p.Metrics(t.Context())
		require.NoError(t, err)
		require.Contains(t, metrics, name, p.Name)
		sum += metrics.Sum(name)
	}
	return sum
}

// eventuallyClean waits until no key is dirty, and returns the waiting time.
func (s *system) eventuallyClean(t *testing.T, within time.Duration) time.Duration {
	t.Helper()
	took, _, err := s.Clean(t.Context(), within)
	require.NoError(t, err)
	return took
}

// archived counts the tasks that Asynq has archived after their last attempt.
func (s *system) archived(t *testing.T) int64 {
	t.Helper()
	archived, err := s.Archived(t.Context())
	require.NoError(t, err)
	return archived
}

// processed counts the tasks that Asynq has run today, including failed ones.
func (s *system) processed(t *testing.T, queue string) int {
	t.Helper()
	info, err := s.inspector.GetQueueInfo(queue)
	require.NoError(t, err)
	return info.Processed
}

// rows returns the values of the live counters in Postgres by key.
func (s *system) rows(t *testing.T) map[string]int64 {
	t.Helper()
	found, err := s.DB.Query(`SELECT key, value FROM counters WHERE deleted_at IS NULL`)
	require.NoError(t, err)
	defer func() { require.NoError(t, found.Close()) }()
	rows := make(map[string]int64)
	for found.Next() {
		var key string
		var value int64
		require.NoError(t, found.Scan(&key, &value))
		rows[key] = value
	}
	require.NoError(t, found.Err())
	return rows
}

func tail(s string, most int) string {
	if len(s) <= most {
		return s
	}
	_, rest, _ := strings.Cut(s[len(s)-most:], "\n")
	return rest
}
