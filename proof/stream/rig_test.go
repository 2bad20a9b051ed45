// Package stream tests streams on the built program: many operations in one request, cuts at random bytes, and hostile bodies, with
// the memory of the api process. `make stream-proof` runs it with a million operations.
package stream

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/proof/world"
	"github.com/afterwrite/afterwrite/proof/world/worldtest"
)

var (
	operations = flag.Int("operations", 20_000, "operations in one stream")
	cuts       = flag.Int("cuts", 5, "how often a stream is cut")
)

func TestMain(m *testing.M) { localtest.Main(m) }

const (
	patience = 10 * time.Minute // for a million operations on a busy machine
	// maxGrowth is how much the memory of an api process may grow in any of these tests. Its length does not matter.
	maxGrowth = 128 << 20
	counters  = 10_000
)

// rig is an api process on servers of its own.
type rig struct {
	*world.Stage

	api    *world.Process
	client *http.Client
}

func setup(t *testing.T) *rig {
	t.Helper()
	path, err := worldtest.Program()
	require.NoError(t, err)
	w, err := world.New(t.Context(), world.Options{Name: "stream", Program: path})
	t.Cleanup(func() { require.NoError(t, w.Close()) })
	require.NoError(t, err)
	r := &rig{client: &http.Client{Timeout: patience, Transport: new(http.Transport)}}
	t.Cleanup(r.client.CloseIdleConnections)
	r.Stage, err = w.Stage(t.Context(), world.StageOptions{Name: "stream"})
	require.NoError(t, err)
	r.api, err = r.Start(t.Context(), "api")
	require.NoError(t, err)
	return r
}

// operation is operation i of a stream, and amount what it adds to counter i modulo counters.
func operation(i int) string {
	return fmt.Sprintf(`{"op":"increment","key":%q,"by":%d,"id":"operation-%d"}`+"\n", world.Key(i%counters), amount(i), i)
}

func amount(i int) int { return 1 + i%3 }

// source generates a stream from operation next on, as it is read.
type source struct {
	next, end int
	rest      []byte
	window    chan struct{} // an element for each operation without an answer; nil: no limit
}

func (s *source) Read(p []byte) (int, error) {
	for len(s.rest) < len(p) && s.next < s.end && s.admit() {
		s.rest = append(s.rest, operation(s.next)...)
		s.next++
	}
	if len(s.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.rest)
	s.rest = append(s.rest[:0], s.rest[n:]...)
	return n, nil
}

// admit waits for room in the window if there is nothing else to send.
func (s *source) admit() bool {
	if s.window == nil {
		return true
	}
	if len(s.rest) == 0 {
		s.window <- struct{}{}
		return true
	}
	select {
	case s.window <- struct{}{}:
		return true
	default:
		return false
	}
}

// post sends a request to the api and returns its answer, whose body the caller closes.
func (r *rig) post(t *testing.T, path string, body io.Reader, headers ...string) (*http.Response, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.api.URL+path, body)
	require.NoError(t, err)
	request.Header.Set("Content-Type", map[string]string{"/v1/stream": "application/x-ndjson"}[path])
	if request.Header.Get("Content-Type") == "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		request.Header.Set(name, value)
	}
	return r.client.Do(request)
}

// answer is any line of an answer.
type answer struct {
	Key     string `json:"key"`
	Line    int    `json:"line"`
	Lines   int    `json:"lines"`
	Applied int    `json:"applied"`
	Failed  int    `json:"failed"`
	Done    bool   `json:"done"`
	Error   *struct {
		Code   string `json:"code"`
		Detail string `json:"detail"`
	} `json:"error"`
}

// requireExact fails the test unless each counter has the sum of n operations, each once, and Postgres has it too.
func (r *rig) requireExact(t *testing.T, n int) {
	t.Helper()
	want := make(map[string]int)
	total := 0
	for i := range n {
		want[world.Key(i%counters)] += amount(i)
		total += amount(i)
	}
	keys := make([]string, 0, len(want))
	for key := range want {
		keys = append(keys, key)
	}
	// Before the drain, many counters have an unknown base, and reading them fails while Postgres is slow.
	_, err := r.Drain(t.Context())
	require.NoError(t, err)
	body, err := json.Marshal(map[string][]string{"keys": keys})
	require.NoError(t, err)
	response, err := r.post(t, "/v1/read", bytes.NewReader(body))
	require.NoError(t, err)
	defer response.Body.Close()
	var read struct {
		Counters []struct {
			Key   string `json:"key"`
			Value int    `json:"value"`
		} `json:"counters"`
	}
	require.NoError(t, json.NewDecoder(response.Body).Decode(&read))
	require.Len(t, read.Counters, len(want))
	for _, c := range read.Counters {
		require.Equal(t, want[c.Key], c.Value, c.Key)
	}
	sum, rows, err := r.Sum(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, total, sum)
	require.EqualValues(t, len(want), rows)
}

// memory measures the resident memory of the api process. It does nothing where there is no /proc.
type memory struct {
	process procfs.Proc
	before  uint64
}

// watchMemory sets the peak to the present size.
func (r *rig) watchMemory(t *testing.T) *memory {
	t.Helper()
	process, err := procfs.NewProc(r.api.Pid())
	if err != nil {
		return nil
	}
	require.NoError(t, os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", r.api.Pid()), []byte("5"), 0o600))
	status, err := process.NewStatus()
	require.NoError(t, err)
	return &memory{process: process, before: status.VmHWM}
}

// requireBounded fails the test if the peak has grown by more than bound bytes.
func (m *memory) requireBounded(t *testing.T, what string, bound uint64) {
	t.Helper()
	if m == nil {
		return
	}
	status, err := m.process.NewStatus()
	require.NoError(t, err)
	t.Logf("%s: memory of the api from %d MiB to %d MiB at its peak", what, m.before>>20, status.VmHWM>>20)
	require.Less(t, status.VmHWM, m.before+bound, what)
}
