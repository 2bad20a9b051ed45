package local

import (
	"errors"
	"fmt"
)

// Kinds of errors, for errors.Is. The error's own text is one line that tells the user what to do.
var (
	// ErrNotInstalled: redis-server, postgres or initdb is neither in PATH nor in the usual places.
	ErrNotInstalled = errors.New("program not installed")
	// ErrNotWritable: the data folder cannot be created, read or written.
	ErrNotWritable = errors.New("folder not usable")
	// ErrPortTaken: another process listens on the requested port.
	ErrPortTaken = errors.New("port taken")
	// ErrLocked: another process uses the data folder.
	ErrLocked = errors.New("folder in use")
	// ErrNoUser: the process is root, and there is no unprivileged user to run postgres as.
	ErrNoUser = errors.New("no user to run postgres as")
	// ErrVersion: the data folder belongs to a PostgreSQL version that is not installed.
	ErrVersion = errors.New("data of another PostgreSQL version")
	// ErrExited: the program ended before it was ready, or with an error. The text contains the last lines of its log.
	ErrExited = errors.New("program ended")
	// ErrKilled: the program did not end in time, so Stop killed it.
	ErrKilled = errors.New("program killed")
)

// problem is an error with a text for the user and a kind for errors.Is.
type problem struct {
	kind    error
	message string
}

func (p *problem) Error() string { return p.message }
func (p *problem) Unwrap() error { return p.kind }

func problemf(kind error, format string, args ...any) error {
	return &problem{kind: kind, message: fmt.Sprintf(format, args...)}
}

func notWritable(dir string, err error) error {
	return problemf(ErrNotWritable, "cannot use the folder %s (%v): choose another one with AFTERWRITE_DATA_DIR", dir, err)
}
