package process

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// watched is a file that a Watcher looks at, and its calls of changed, which read the file.
type watched struct {
	path  string
	reads chan string
}

func watch(t *testing.T) *watched {
	t.Helper()
	w := &watched{path: filepath.Join(t.TempDir(), "file"), reads: make(chan string, 100)}
	w.write(t, "0")
	watcher := NewWatcher(w.path)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		watcher.Run(ctx, func() {
			text, err := os.ReadFile(w.path)
			if err == nil {
				w.reads <- string(text)
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return w
}

func (w *watched) write(t *testing.T, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(w.path, []byte(text), 0o600))
}

// next returns the next text that was read.
func (w *watched) next(t *testing.T) string {
	t.Helper()
	select {
	case text := <-w.reads:
		return text
	case <-time.After(20 * time.Second):
		require.Fail(t, "the change was not noticed")
		return ""
	}
}

func TestWatcherNoticesEveryKindOfChange(t *testing.T) {
	t.Parallel()
	w := watch(t)
	w.write(t, "11")
	require.Equal(t, "11", w.next(t), "another size")
	w.write(t, "22")
	require.Equal(t, "22", w.next(t), "the same size")

	replacement := w.path + ".new"
	info, err := os.Stat(w.path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(replacement, []byte("33"), 0o600))
	require.NoError(t, os.Chtimes(replacement, info.ModTime(), info.ModTime()))
	require.NoError(t, os.Rename(replacement, w.path))
	require.Equal(t, "33", w.next(t), "another file with the same size and time")

	require.NoError(t, os.WriteFile(replacement, []byte("44"), 0o600))
	require.NoError(t, os.Remove(w.path))
	require.NoError(t, os.Symlink(replacement, w.path))
	require.Equal(t, "44", w.next(t), "a symbolic link")

	require.NoError(t, os.Remove(w.path))
	w.write(t, "55")
	require.Equal(t, "55", w.next(t), "removed and made again")
	require.Empty(t, w.reads, "each change was read once")
}
