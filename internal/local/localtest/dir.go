package localtest

import (
	"os"
	"path/filepath"
	"time"

	"github.com/afterwrite/afterwrite/internal/local"
)

const (
	dirPattern = "afterwrite-test-*"
	// staleAfter is far beyond the life of a test binary, whose timeout is 10 minutes unless told otherwise.
	staleAfter = time.Hour
)

// removeStale removes the data of test binaries that were killed before they could do it: old folders whose lock nobody holds.
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

// dataName is the server's folder in a temporary one. A long path would leave no room for a socket's name.
const dataName = "d"
