package local

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// makeDir creates a private data folder (mode 0700) and its parents, and returns its absolute path without symbolic links. The folder
// belongs to cred, unless cred is nil.
func makeDir(dir string, cred *syscall.Credential) (string, error) {
	if dir == "" {
		return "", problemf(ErrNotWritable, "no data folder was given")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", notWritable(dir, err)
	}
	if err := os.MkdirAll(filepath.Dir(abs), 0o755); err != nil {
		return "", notWritable(dir, err)
	}
	mkdirErr := os.Mkdir(abs, 0o700)
	if mkdirErr != nil && !errors.Is(mkdirErr, fs.ErrExist) {
		return "", notWritable(dir, mkdirErr)
	}
	resolved, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return "", notWritable(dir, err)
	}
	if mkdirErr == nil {
		err = give(resolved, cred)
	} else {
		err = takeOver(resolved, cred)
	}
	if err != nil {
		return "", notWritable(dir, err)
	}
	return resolved, nil
}

// TempDir creates a temporary folder for servers. Unlike os.MkdirTemp, it gives the user `postgres` access.
func TempDir(pattern string) (string, error) {
	dir, err := os.MkdirTemp("", pattern)
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o711)
}

// RemoveDir removes dir, and the parent of dataDir (see Dir) if dataDir is outside dir. It retries for up to a second, because backends
// of a killed postgres may still write.
func RemoveDir(dir, dataDir string) error {
	err := removeAll(dir)
	if rel, relErr := filepath.Rel(dir, dataDir); relErr == nil && !filepath.IsLocal(rel) {
		err = errors.Join(err, removeAll(filepath.Dir(dataDir)))
	}
	return err
}

func removeAll(dir string) error {
	const tries, pause = 20, 50 * time.Millisecond
	var err error
	for range tries {
		if err = os.RemoveAll(dir); err == nil {
			return nil
		}
		time.Sleep(pause)
	}
	return err
}

// takeOver changes the owner of an existing folder to cred. The folder must be empty: root must not give away other users' files.
func takeOver(dir string, cred *syscall.Credential) error {
	if cred == nil {
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid == cred.Uid {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return errors.New("it belongs to another user")
	}
	return give(dir, cred)
}

// give changes the owner of a file to cred, unless cred is nil.
func give(path string, cred *syscall.Credential) error {
	if cred == nil {
		return nil
	}
	return os.Lchown(path, int(cred.Uid), int(cred.Gid))
}

// keptPassword returns the password in dir/password (mode 0600). If there is none, it creates one of 26 random letters and digits.
func keptPassword(dir string, cred *syscall.Credential) (string, error) {
	path := filepath.Join(dir, "password")
	text, err := os.ReadFile(path)
	if password := strings.TrimSpace(string(text)); err == nil && password != "" {
		return password, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", notWritable(dir, err)
	}

	password := rand.Text()
	_ = os.Remove(path) // the file may exist but be empty
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", notWritable(dir, err)
	}
	_, err = file.WriteString(password + "\n")
	if err := errors.Join(err, file.Close(), give(path, cred)); err != nil {
		return "", notWritable(dir, err)
	}
	return password, nil
}
