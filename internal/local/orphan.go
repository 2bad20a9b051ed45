package local

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"
)

// orphanPatience bounds the wait for the shutdown of a server whose parent was killed.
const orphanPatience = 15 * time.Second

// waitForOrphan waits until no server of an earlier run uses dir: two servers on the same files would destroy them. On Linux the kernel
// has already told that server to end. If it still runs after orphanPatience, the error is ErrLocked.
//
// A pid file without such a process is stale, after kill -9 or in a restarted container. It is removed, because postgres does not start
// if any process has that ID.
func waitForOrphan(ctx context.Context, pidFile, name, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, orphanPatience)
	defer cancel()

	pid, err := readPID(pidFile)
	if os.IsNotExist(err) {
		return nil
	}
	for err == nil && pid > 1 && worksIn(pid, name, dir) {
		if wait(ctx, pollEvery) != nil {
			return problemf(ErrLocked, "%s (process %d) of an earlier run still uses %s: stop it with `kill %d`", name, pid, dir, pid)
		}
	}
	if err := os.Remove(pidFile); err != nil && !os.IsNotExist(err) {
		return notWritable(dir, err)
	}
	return nil
}

// readPID reads the first line of a pid file.
func readPID(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strconv.Atoi(strings.TrimSpace(line))
}

// wait waits for d. If ctx is done before, it returns ctx's error.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
