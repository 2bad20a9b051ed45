package localtest

import (
	"os"
	"path/filepath"
	"time"

	"github.com/afterwrite/afterwrite/internal/local"
)

const (
	dirPattern = "afterwrite-test-*"
	// staleAfter is far longer than a test binary runs; its default timeout is 10 minutes.
	staleAfter = time.Hour
)

// removeStale removes the data of killed test binaries: old folders that are not locked.
func removeStale() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), dirPattern))
	for _, dir := range dirs {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < staleAfter {
			continue
		}
		unlock, err := local.Lock(filepath.Join(dir, dataName))
		if err != nil {
			continue // in use, or not ours
		}
		_ = os.RemoveAll(dir)
		_ = unlock()
	}
}

// dataName is the server's folder in a temporary folder. It is short because the path of a socket must be short.
const dataName = "d"
