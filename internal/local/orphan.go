package local

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"
)

// orphanPatience bounds the wait for a server whose parent was killed and that is still shutting down.
const orphanPatience = 15 * time.Second

// waitForOrphan makes sure that no server of an earlier run still works in dir: two servers on the same files would destroy them.
// On Linux such a server has been told to end, so this waits for it; what still runs after that is left alone, with ErrLocked.
// A pid file that names no such process is stale (kill -9, or a container that starts counting at 1 again) and is removed, because
// postgres would take any process that has got the same ID for its former self.
func waitForOrphan(ctx context.Context, pidFile, name, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, orphanPatience)
	defer cancel()

	pid, err := readPID(pidFile)
	if os.IsNotExist(err) {
		return nil
	}
	for err == nil && pid > 1 && worksIn(pid, name, dir) {
		if wait(ctx, pollEvery) != nil {
			return problemf(ErrLocked, "%s (process %d) of an earlier run still works in %s: stop it with `kill %d`", name, pid, dir, pid)
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

// wait pauses for d, or returns the error of ctx when that is done first.
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
