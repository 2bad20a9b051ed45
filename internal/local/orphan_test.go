package local_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// envParent makes the test binary start both servers in this folder and wait to be killed.
const envParent = "AFTERWRITE_TEST_PARENT"

func parentMain() {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	dir := os.Getenv(envParent)
	r, err := local.StartRedis(ctx, local.RedisOptions{Dir: filepath.Join(dir, "redis"), AppendOnly: true})
	if err != nil {
		panic(err)
	}
	p, err := local.StartPostgres(ctx, local.PostgresOptions{Dir: filepath.Join(dir, "postgres")})
	if err != nil {
		panic(err)
	}
	runtime.GC() // garbage collection must not end the threads that started the children
	fmt.Fprintln(os.Stdout, r.Pid(), p.Pid())
	<-ctx.Done()
}

func TestServersEndWhenTheirParentIsKilled(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("there is no parent death signal")
	}
	ctx := bounded(t)
	dir := filepath.Dir(dataDir(t))
	parent := exec.CommandContext(ctx, os.Args[0])
	parent.Env = append(os.Environ(), envParent+"="+dir)
	out, err := parent.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, parent.Start())
	defer func() { _ = parent.Process.Kill() }()

	lines := bufio.NewScanner(out)
	require.True(t, lines.Scan(), "the parent failed to start its servers")
	pids := strings.Fields(lines.Text())
	require.Len(t, pids, 2)
	for _, pid := range pids {
		require.True(t, alive(pid))
	}

	require.NoError(t, parent.Process.Kill())
	_ = parent.Wait()

	// The next run starts at once, and waits for servers that are shutting down.
	startRedis(t, local.RedisOptions{Dir: filepath.Join(dir, "redis"), AppendOnly: true})
	startPostgres(t, local.PostgresOptions{Dir: filepath.Join(dir, "postgres")})
	for _, pid := range pids {
		localtest.Eventually(t, 10*time.Second, func() (bool, string) { return !alive(pid), pid + " still runs" })
	}
}

// alive reports whether a process runs. A zombie does not count.
func alive(pid string) bool {
	text, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(text), ") Z ")
}
