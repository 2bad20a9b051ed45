package world

import (
	"context"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local"
)

const patience = 30 * time.Second

// All tests of stages share one World, since each World needs a build and two servers.
func TestStages(t *testing.T) {
	t.Parallel()
	w, err := New(t.Context(), Options{Name: "world", Redis: local.RedisOptions{Socket: true}})
	t.Cleanup(func() { require.NoError(t, w.Close()) })
	require.NoError(t, err)
	for name, test := range map[string]func(*testing.T, *Stage){
		"a worker drains all dirty keys":       testDrained,
		"keys stay dirty without a worker":     testDirty,
		"a restored stage continues correctly": testSaved,
		"a history has every operation":        testOperations,
	} {
		stage, err := w.Stage(t.Context(), StageOptions{Name: name, History: name == "a history has every operation"})
		require.NoError(t, err)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.NoError(t, stage.Reset(t.Context(), 100))
			test(t, stage)
		})
	}
}

func TestReadyFailsIfTheProcessWasStopped(t *testing.T) {
	t.Parallel()
	require.ErrorContains(t, (&Process{Name: "api-0"}).Ready(t.Context()), "api-0 is not running")
}

func startAll(t *testing.T, stage *Stage) (api *Process) {
	t.Helper()
	for _, name := range []string{"scheduler", "worker", "api"} {
		var err error
		api, err = stage.Start(t.Context(), name)
		require.NoError(t, err)
	}
	return api
}

// increment increments a counter whose value Redis has by then: otherwise the api answers 202 when a busy Postgres takes longer than 100 ms.
func increment(t *testing.T, api *Process, key string) {
	t.Helper()
	url := api.URL + "/v1/counters/" + key
	require.NoError(t, Await(t.Context(), patience, "the value of "+key, func(context.Context) (bool, error) {
		return request(t, http.MethodGet, url) == http.StatusOK, nil
	}))
	require.Equal(t, http.StatusOK, request(t, http.MethodPost, url+"/increment"))
}

// request sends a request without a body, and returns the status of the answer.
func request(t *testing.T, method, url string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	return response.StatusCode
}

func requireSum(t *testing.T, stage *Stage, want int64) {
	t.Helper()
	sum, rows, err := stage.Sum(t.Context())
	require.NoError(t, err)
	require.Equal(t, want, sum)
	require.EqualValues(t, 100, rows)
}

func testDrained(t *testing.T, stage *Stage) {
	t.Helper()
	api := startAll(t, stage)
	began := time.Now()
	increment(t, api, Key(7))
	require.NoError(t, stage.Drained(t.Context(), patience))
	requireSum(t, stage, 1)

	flushed, err := stage.FlushedSince(t.Context(), began)
	require.NoError(t, err)
	require.EqualValues(t, 1, flushed.Rows)
	require.WithinRange(t, flushed.Last, began, time.Now())
	require.Equal(t, flushed.Last, flushed.Tenth)

	later := flushed.Last.Add(time.Microsecond)
	flushed, err = stage.FlushedSince(t.Context(), later)
	require.NoError(t, err)
	require.Zero(t, flushed.Rows)
	require.WithinDuration(t, later, flushed.Last, 0, "without rows, Last is the given time")
}

func testDirty(t *testing.T, stage *Stage) {
	t.Helper()
	_, err := stage.Dirty(t.Context())
	require.ErrorIs(t, err, errNoProcess)
	api, err := stage.Start(t.Context(), "api")
	require.NoError(t, err)
	increment(t, api, Key(1))
	increment(t, api, Key(2))
	dirty, err := stage.Dirty(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 2, dirty)
	require.ErrorIs(t, stage.Drained(t.Context(), time.Second), context.DeadlineExceeded)
	_, err = stage.DrainedTo(t.Context(), 2, patience)
	require.NoError(t, err)

	_, err = stage.Drain(t.Context())
	require.NoError(t, err)
	requireSum(t, stage, 2)
}

// After Restore, Redis and Postgres agree, and writes continue from the restored values.
func testSaved(t *testing.T, stage *Stage) {
	t.Helper()
	api := startAll(t, stage)
	require.False(t, stage.Saved())
	increment(t, api, Key(7))
	require.NoError(t, stage.Drained(t.Context(), patience))
	require.NoError(t, stage.StopAll())
	require.NoError(t, stage.Save(t.Context()))
	require.True(t, stage.Saved())

	for want := range int64(2) { // every restore gives the same state
		require.NoError(t, stage.Restore(t.Context()))
		requireSum(t, stage, 1)
		api = startAll(t, stage)
		for range want + 1 {
			increment(t, api, Key(7))
		}
		require.NoError(t, stage.Drained(t.Context(), patience))
		requireSum(t, stage, want+2)
		require.NoError(t, stage.StopAll())
	}
}

func testOperations(t *testing.T, stage *Stage) {
	t.Helper()
	api := startAll(t, stage)
	for i := range 3 {
		increment(t, api, Key(i))
	}
	_, _, err := stage.Clean(t.Context(), patience)
	require.NoError(t, err)
	require.NoError(t, stage.StopAll())
	operations, bytes, err := stage.Operations(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 3, operations)
	require.Positive(t, bytes)

	require.NoError(t, stage.Save(t.Context()))
	require.NoError(t, stage.execute(t.Context(), "TRUNCATE operations"))
	require.NoError(t, stage.Restore(t.Context()))
	operations, _, err = stage.Operations(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 3, operations)
}

func TestBuildCommitBuildsHEAD(t *testing.T) {
	t.Parallel()
	commit, err := git(t.Context(), "rev-parse", "HEAD")
	if err != nil {
		t.Skip("this is not a git repository: ", err)
	}
	program := filepath.Join(t.TempDir(), "afterwrite")
	require.NoError(t, buildCommit(t.Context(), commit, program))
	out, err := exec.CommandContext(t.Context(), program, "version").CombinedOutput()
	require.NoError(t, err, string(out))
}

func TestBuildCommitNamesTheRemedyForAMissingCommit(t *testing.T) {
	t.Parallel()
	err := buildCommit(t.Context(), strings.Repeat("0", 40), filepath.Join(t.TempDir(), "afterwrite"))
	require.ErrorIs(t, err, ErrNoCommit)
	require.ErrorContains(t, err, "git fetch --unshallow")
}
