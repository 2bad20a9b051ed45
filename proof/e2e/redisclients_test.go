package e2e_test

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/proof/world"
)

// TestRedisClientsCountInPostgres uses the api with the programs that people have: redis-cli, redis-benchmark, and clients from npm.
func TestRedisClientsCountInPostgres(t *testing.T) {
	t.Parallel()
	s := stage(t, world.Options{})
	s.run(t, "scheduler")
	s.run(t, "worker")

	_, port := s.redisAPI(t)
	s.redisCLI(t, port)
	s.redisBenchmark(t, port)
	s.clientsFromNPM(t)
}

func (s *system) redisCLI(t *testing.T, port string) {
	t.Helper()
	cli := func(args ...string) string {
		return run(t, "redis-cli", append([]string{"-p", port}, args...)...)
	}
	cli("DEL", "counter:page_views") // so that Redis knows that it does not exist, and a slow Postgres does not matter
	require.Equal(t, "1\n", cli("INCRBY", "counter:page_views", "1"))
	require.Equal(t, "1\n", cli("AW.WAIT", "counter:page_views", "20000"))
	require.Equal(t, int64(1), s.rows(t)["counter:page_views"])
	require.Equal(t, "OK\n", cli("SET", "counter:page_views", "15847293"))
	require.Equal(t, "1\n", cli("AW.WAIT", "counter:page_views", "20000"))
	require.Equal(t, int64(15847293), s.rows(t)["counter:page_views"])
}

func (s *system) redisBenchmark(t *testing.T, port string) {
	t.Helper()
	benchmark := func(args ...string) string {
		out := run(t, "redis-benchmark", append([]string{"-p", port, "-c", "10", "-P", "8", "-n", "800", "-r", "10", "--csv"}, args...)...)
		require.NotContains(t, strings.ToLower(out), "error")
		return out
	}
	// Its own SET and MSET have values that are no integers. Its own GET reads what this SET writes.
	benchmark("SET", "key:__rand_int__", "7")
	benchmark("MSET", "key:__rand_int__", "8", "mset:a", "1")
	out := benchmark("-t", "ping,get,incr")
	for _, test := range []string{"PING_INLINE", "PING_MBULK", "GET", "INCR"} {
		require.Contains(t, out, `"`+test+`"`)
	}
	s.eventuallyClean(t, 20*time.Second)
	rows, sum := s.rows(t), int64(0)
	for key, value := range rows {
		if strings.HasPrefix(key, "counter:0") { // those of INCR
			sum += value
		}
	}
	require.Equal(t, int64(800), sum)
	require.Equal(t, int64(1), rows["mset:a"])
}

// clientsFromNPM uses redis and ioredis with an api that has keys, and is started again meanwhile.
func (s *system) clientsFromNPM(t *testing.T) {
	t.Helper()
	hash := sha256.Sum256([]byte("token"))
	api, port := s.redisAPI(t, fmt.Sprintf("AFTERWRITE_API_KEYS=npm:%x:read+write", hash))
	program := startNode(t, port, "token")
	require.Equal(t, "restart", program.line(t))
	require.NoError(t, api.Stop())
	startAgain(t, api)
	_, _ = io.WriteString(program.in, "\n") // fails if it has ended, which the next line reports
	require.Equal(t, "ok", program.line(t))
	require.NoError(t, program.Wait())
	s.eventuallyClean(t, 20*time.Second)
	rows := s.rows(t)
	for _, prefix := range []string{"redis2:", "redis3:", "io:"} {
		require.Equal(t, int64(2), rows[prefix+"restarts"], prefix)
	}
}

// redisAPI starts an api that listens for the Redis protocol on a port.
func (s *system) redisAPI(t *testing.T, settings ...string) (p *world.Process, port string) {
	t.Helper()
	number, err := local.FreePort()
	require.NoError(t, err)
	port = strconv.Itoa(number)
	p, err = s.Start(t.Context(), "api", append(settings, "AFTERWRITE_RESP_ADDR="+net.JoinHostPort("127.0.0.1", port))...)
	require.NoError(t, err)
	return p, port
}

// run runs a program to its end, and returns what it prints.
func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	require.NoError(t, err, "%s\nIs %s installed? `deploy/setup.sh test` does that.", out, program)
	return string(out)
}

// nodeProgram is proof/clients/clients.js while it runs. It ends with the test.
type nodeProgram struct {
	*exec.Cmd

	in       io.Writer
	out      *bufio.Reader
	problems *strings.Builder
}

func startNode(t *testing.T, args ...string) *nodeProgram {
	t.Helper()
	script := filepath.Join("..", "clients", "clients.js")
	p := &nodeProgram{Cmd: exec.CommandContext(t.Context(), "node", append([]string{script}, args...)...), problems: new(strings.Builder)}
	p.Stderr = p.problems
	in, err := p.StdinPipe()
	require.NoError(t, err)
	out, err := p.StdoutPipe()
	require.NoError(t, err)
	p.in, p.out = in, bufio.NewReader(out)
	require.NoError(t, p.Start())
	t.Cleanup(func() { _ = p.Process.Kill(); _ = p.Wait() })
	return p
}

// line returns the next line that the program prints.
func (p *nodeProgram) line(t *testing.T) string {
	t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		_ = p.Wait() // for all of its problems
	}
	require.NoError(t, err, "%s\nAre node and its packages installed? `deploy/setup.sh test` does that.", p.problems)
	return strings.TrimSpace(line)
}
