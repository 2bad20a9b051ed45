package process

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// watchEvery is the time between two looks at a file. A change is read at the second look that sees it, so within about a second.
const watchEvery = 500 * time.Millisecond

// Watcher tells when files have changed. It looks at them instead of using notifications, which do not work on all file systems.
// Symbolic links are followed, since Kubernetes replaces secrets by replacing links.
type Watcher struct {
	files []string
	read  stats // at the last reading
}

// NewWatcher returns a Watcher that knows the files as they are. Call it before the first reading, so that no change is missed.
func NewWatcher(files ...string) *Watcher { return &Watcher{files: files, read: stat(files)} }

// Run calls changed when one of the files has changed, and on SIGHUP, until ctx is done. It waits until a file stays the same from one look
// to the next, so that it does not read a file that is being written. A file that disappears is no change.
func (w *Watcher) Run(ctx context.Context, changed func()) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()

	last := w.read
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			w.read = stat(w.files)
			last = w.read
			changed()
		case <-ticker.C:
			now := stat(w.files)
			if now.same(last) && !now.same(w.read) {
				w.read = now
				changed()
			}
			last = now
		}
	}
}

// stats tell one content of files from another.
type stats []os.FileInfo

// stat has nil for a file that cannot be read now.
func stat(files []string) stats {
	all := make(stats, len(files))
	for i, file := range files {
		if info, err := os.Stat(file); err == nil {
			all[i] = info
		}
	}
	return all
}

// same reports whether none differs of the files that are in both.
func (s stats) same(other stats) bool {
	for i, a := range s {
		b := other[i]
		if a == nil || b == nil {
			continue
		}
		if !os.SameFile(a, b) || !a.ModTime().Equal(b.ModTime()) || a.Size() != b.Size() {
			return false
		}
	}
	return true
}
