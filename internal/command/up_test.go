package command

import (
	"bytes"
	"database/sql"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	_ "github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// dataDir makes a folder that the user `postgres` can reach too, when the tests run as root.
func dataDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "afterwrite-up-*") //nolint:usetesting // the folders around t.TempDir are for its user only
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o711))
	return filepath.Join(dir, "data")
}

func startUp(t *testing.T, dir string, env ...string) *running {
	t.Helper()
	return start(t, append(append([]string{"AFTERWRITE_DATA_DIR=" + dir}, anywhere...), env...), "up")
}

// descendants are the processes below pid, from /proc.
func descendants(t *testing.T, pid int) []int {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	parents := make(map[int]int)
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		own, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		require.NoError(t, err)
		parents[own], err = strconv.Atoi(string(fields[1]))
		require.NoError(t, err)
	}
	var below []int
	for own := range parents {
		for parent := own; parent > 1; parent = parents[parent] {
			if parents[parent] == pid {
				below = append(below, own)
				break
			}
		}
	}
	return below
}

func requireGone(t *testing.T, pids []int) {
	t.Helper()
	for _, pid := range pids {
		require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH, "process %d is left", pid)
	}
}

// increment sends the request that `up` proposes, and returns the answer.
func increment(t *testing.T, p *running) string {
	t.Helper()
	url := p.find(t, `curl -X POST (\S+)`)
	response, err := http.Post(url, "", nil)
	require.NoError(t, err)
	defer response.Body.Close()
	var body bytes.Buffer
	_, err = body.ReadFrom(response.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, response.StatusCode, body.String())
	return body.String()
}

// rowInPostgres reads the counter that increment has written, as psql would.
func rowInPostgres(t *testing.T, p *running) int64 {
	t.Helper()
	password, err := os.ReadFile(p.find(t, `PGPASSWORD="\$\(cat (\S+)\)"`))
	require.NoError(t, err)
	db, err := sql.Open("postgres", fmt.Sprintf("postgres://afterwrite:%s@127.0.0.1:%s/afterwrite?sslmode=disable",
		strings.TrimSpace(string(password)), p.find(t, `psql -h 127\.0\.0\.1 -p (\d+)`)))
	require.NoError(t, err)
	defer db.Close()
	var value int64
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT value FROM afterwrite.counters WHERE key = 'page:home'").Scan(&value))
	return value
}

func TestUpKeepsCountersAndLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)

	first := startUp(t, dir)
	require.Contains(t, increment(t, first), `"value":1,`)
	require.Contains(t, increment(t, first), `"value":2,`)
	below := descendants(t, first.cmd.Process.Pid)
	require.GreaterOrEqual(t, len(below), 6, "four processes, Redis, Postgres and what belongs to it")
	first.stop(t)

	requireGone(t, below)
	text := first.out.String()
	require.Contains(t, text[strings.LastIndex(text[:len(text)-1], "\n"):], "stopped: Postgres has every counter")
	unlock, err := local.Lock(dir)
	require.NoError(t, err, "the lock is left")
	require.NoError(t, unlock())

	second := startUp(t, dir)
	require.Contains(t, increment(t, second), `"value":3,`)
	require.GreaterOrEqual(t, rowInPostgres(t, second), int64(2))
	below = descendants(t, second.cmd.Process.Pid)
	second.stop(t)
	requireGone(t, below)
}

func TestASecondUpInTheSameFolderIsRefused(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	first := startUp(t, dir)
	first.find(t, "(Try it)")

	line := startUp(t, dir).oneLine(t)

	require.Contains(t, line, fmt.Sprintf("in use by process %d", first.cmd.Process.Pid))
	require.Contains(t, line, "AFTERWRITE_DATA_DIR")
	first.stop(t)
}

func TestUpDoesNotOpenTheAPIToOthers(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	require.Contains(t, startUp(t, dir, "AFTERWRITE_API_ADDR=0.0.0.0:0").oneLine(t), "afterwrite api-key new NAME")
	require.NoDirExists(t, dir, "no server was started")
}

func TestUpSaysInOneLineWhatStopsIt(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	for _, test := range []struct{ variable, want string }{
		{"AFTERWRITE_DASHBOARD_ADDR=" + taken.Addr().String(), "set AFTERWRITE_DASHBOARD_ADDR to another address"},
		{"PORT=" + strconv.Itoa(taken.Addr().(*net.TCPAddr).Port), "set PORT to another address"},
		{"AFTERWRITE_REDIS_SERVER=/nowhere/redis-server", "/nowhere/redis-server was not found: install it with `make deps`"},
		{"AFTERWRITE_POSTGRES_BIN=/nowhere", "postgres was not found: install it with `make deps`"},
		{"AFTERWRITE_DATA_DIR=/dev/null/x", "choose another one with AFTERWRITE_DATA_DIR"},
		{"DATABASE_URL=postgres://me:hunter2@127.0.0.1:1/x", "connection refused"},
	} {
		// Of a variable that is there twice, a process gets the last.
		line := startUp(t, dataDir(t), test.variable, "AFTERWRITE_API_OPEN=true").oneLine(t)
		require.Contains(t, line, test.want)
		require.NotContains(t, line, "hunter2")
	}
}

func TestUpStopsEverythingWhenAProcessDies(t *testing.T) {
	t.Parallel()
	p := startUp(t, dataDir(t))
	p.find(t, "(Try it)")
	below := descendants(t, p.cmd.Process.Pid)
	worker := childNamed(t, below, "worker")

	require.NoError(t, syscall.Kill(worker, syscall.SIGKILL))

	require.Contains(t, p.oneLine(t), "the worker ended with signal: killed")
	requireGone(t, below)
}

func TestUpStopsInOrderWhenItsTerminalOrItsReaderGoes(t *testing.T) {
	t.Parallel()
	// Under nohup, `up` would take it that it is to go on. What is handled here is not ignored there.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	p := startUp(t, dataDir(t))
	p.find(t, "(Try it)")
	below := descendants(t, p.cmd.Process.Pid)

	require.NoError(t, p.cmd.Process.Signal(syscall.SIGPIPE)) // what a write without a reader gives
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))

	require.Equal(t, exitOK, p.end(t))
	require.Contains(t, p.out.String(), "stopped: Postgres has every counter")
	requireGone(t, below)
}

func TestTheSecondSignalEndsUpAtOnce(t *testing.T) {
	t.Parallel()
	p := startUp(t, dataDir(t))
	p.find(t, "(Try it)")
	below := descendants(t, p.cmd.Process.Pid)
	// A request whose headers do not end keeps the api for some seconds.
	address := strings.TrimPrefix(p.find(t, `  api +(\S+)`), "http://")
	connection, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer connection.Close()
	_, err = connection.Write([]byte("GET /healthz HTTP/1.1\r\n"))
	require.NoError(t, err)

	require.NoError(t, p.cmd.Process.Signal(syscall.SIGINT))
	p.find(t, "(stopping: the api)")
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGINT))

	require.Equal(t, -1, p.end(t), "ended by the signal")
	waitGone(t, below)
}

func TestTheProcessesOfAnUpThatWasKilledEnd(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has a parent death signal")
	}
	p := startUp(t, dataDir(t))
	p.find(t, "(Try it)")
	below := descendants(t, p.cmd.Process.Pid)

	require.NoError(t, p.cmd.Process.Kill())
	p.end(t)

	waitGone(t, below)
}

// childNamed finds the process whose first argument is name.
func childNamed(t *testing.T, pids []int, name string) int {
	t.Helper()
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && strings.HasSuffix(string(text), "\x00"+name+"\x00") {
			return pid
		}
	}
	require.Fail(t, "there is no "+name)
	return 0
}

// waitGone waits for the end of processes that are not children of this one. Their new parent may be slow to reap them.
func waitGone(t *testing.T, pids []int) {
	t.Helper()
	for _, pid := range pids {
		localtest.Eventually(t, patience, func() (bool, string) {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err != nil {
				return true, ""
			}
			state := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])[0]
			return string(state) == "Z", string(stat)
		})
	}
}
