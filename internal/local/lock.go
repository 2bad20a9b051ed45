package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// lockName is the lock's file in the folder; it holds the process ID of the owner, for the message of the loser.
const lockName = "lock"

// Lock makes the calling process the only user of dir, which it creates (mode 0755) if it is missing. It does not wait: when
// another process (or another call in this one) has the lock, the error is ErrLocked and names that process.
//
// The kernel releases the lock when the process ends, however it ends; unlock releases it earlier. The file stays,
// because removing it would let two processes lock two different files of the same name.
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
			return nil, problemf(ErrLocked, "the folder %s is in use by%s: stop that one first, or set AFTERWRITE_DATA_DIR to another",
				dir, lockOwner(path))
		}
		return nil, notWritable(dir, err)
	}

	// Who has the lock is a courtesy to the loser; the lock holds without it.
	if err := file.Truncate(0); err == nil {
		fmt.Fprintf(file, "%d\n", os.Getpid())
	}
	return func() error {
		// Closing is not enough: a child that another goroutine is starting has a copy of the file until its exec.
		return errors.Join(unix.Flock(int(file.Fd()), unix.LOCK_UN), file.Close())
	}, nil
}

func lockOwner(path string) string {
	text, err := os.ReadFile(path)
	pid := strings.TrimSpace(string(text))
	if err != nil || pid == "" {
		return " another process"
	}
	return " process " + pid
}
