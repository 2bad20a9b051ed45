package localtest

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/afterwrite/afterwrite/internal/local"
)

const (
	dirPattern = "afterwrite-test-*"
	// staleAfter is far beyond the life of a test binary, whose timeout is 10 minutes unless told otherwise.
	staleAfter = time.Hour
	// removeTries times lookEveryMax is what the removal of a folder may take: 1 s.
	removeTries = 20
)

// newDir makes a folder for a server's data. It is not t.TempDir, whose mode of 0700 shuts out the user `postgres` when the tests
// run as root, and whose long path leaves no room for a socket's name.
func newDir() (string, error) {
	dir, err := os.MkdirTemp("", dirPattern)
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o711)
}

// removeData removes what newDir made, and the folder where the data really is, if that is elsewhere.
func removeData(dir, dataDir string) error {
	err := removeAll(dir)
	if rel, relErr := filepath.Rel(dir, dataDir); relErr == nil && !filepath.IsLocal(rel) {
		err = errors.Join(err, removeAll(filepath.Dir(dataDir)))
	}
	return err
}

// removeAll tries a few times: the last backends of a postgres that was killed may still be writing.
func removeAll(dir string) error {
	var err error
	for range removeTries {
		if err = os.RemoveAll(dir); err == nil {
			return nil
		}
		time.Sleep(lookEveryMax)
	}
	return err
}

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

// dataName is the server's folder in the one that newDir makes.
const dataName = "d"
