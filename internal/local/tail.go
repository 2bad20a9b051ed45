package local

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

const (
	tailBytesMax = 8 << 10
	tailLinesMax = 12
)

// tail forwards a program's output to next, and keeps the last lines for errors.
type tail struct {
	next io.Writer // may be nil

	mu   sync.Mutex
	kept []byte
}

// Write never fails, so that a program does not get SIGPIPE if its log cannot be written.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - tailBytesMax; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	t.mu.Unlock()

	if t.next != nil {
		_, _ = t.next.Write(p)
	}
	return len(p), nil
}

// String returns the last lines, at most tailLinesMax, without the final newline.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()

	lines := strings.Split(string(bytes.TrimSpace(t.kept)), "\n")
	if over := len(lines) - tailLinesMax; over > 0 {
		lines = lines[over:]
	}
	return strings.Join(lines, "\n")
}
