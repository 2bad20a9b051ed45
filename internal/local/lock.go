package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// lockName is the lock file in the folder. It contains the process ID of the owner, for the error of others.
const lockName = "lock"

// Lock locks dir for this process, and creates it (mode 0755) if it is missing. It does not wait: if another process, or another call
// in this process, has the lock, it returns ErrLocked with that process's ID.
//
// The kernel releases the lock when the process ends. unlock releases it earlier. The file stays, because after removing it two
// processes could lock two different files of the same name.
func Lock(dir string) (unlock func() error, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, notWritable(dir, err)
	}

	path := filepath.Join(dir, lockName)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil, notWritable(dir, err)
	}

	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, problemf(ErrLocked, "the folder %s is in use by %s: stop that first, or set AFTERWRITE_DATA_DIR to another folder",
				dir, lockOwner(path))
		}
		return nil, notWritable(dir, err)
	}

	// The process ID is only for the error of others, so failing to write it is no error.
	if err := file.Truncate(0); err == nil {
		fmt.Fprintf(file, "%d\n", os.Getpid())
	}
	return func() error {
		// Close does not suffice: a child that another goroutine is starting has a copy of the descriptor until its exec.
		return errors.Join(unix.Flock(int(file.Fd()), unix.LOCK_UN), file.Close())
	}, nil
}

func lockOwner(path string) string {
	text, err := os.ReadFile(path)
	pid := strings.TrimSpace(string(text))
	if err != nil || pid == "" {
		return "another process"
	}
	return "process " + pid
}
