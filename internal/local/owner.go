package local

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// unreachableBase gets the data if postgres's user cannot access the data folder. Unlike /tmp on many systems, it is on a disk.
const unreachableBase = "/var/lib"

// postgresUser returns the user to run postgres as; nil is the user of this process. Postgres refuses to run as root, so root uses the
// owner of existing data, or else the user `postgres` that packages create.
func postgresUser(dir string) (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // documented above; exec takes nil for the same
	}
	if info, err := os.Stat(filepath.Join(dir, clusterName)); err == nil {
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 {
			return &syscall.Credential{Uid: stat.Uid, Gid: stat.Gid}, nil
		}
	}

	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, problemf(ErrNoUser, "postgres does not run as root and there is no user `postgres`: "+
			"create it with `useradd --system postgres`, or set DATABASE_URL")
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("ID of user postgres: %w", err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("group of user postgres: %w", err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// makePostgresDir creates the data folder. If cred has no access to its parents, such as a home folder of mode 0700, the data folder is
// /var/lib/afterwrite-<hash of dir>/postgres, and dir is a symbolic link to it.
func makePostgresDir(dir string, cred *syscall.Credential) (string, error) {
	if cred == nil || dir == "" {
		return makeDir(dir, nil)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", notWritable(dir, err)
	}
	parent := filepath.Dir(abs)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", notWritable(dir, err)
	}

	elsewhere := unreachableDir(abs)
	link, linkErr := os.Readlink(abs)
	if linkErr != nil || link != elsewhere {
		if reachable(parent, cred) {
			return makeDir(abs, cred)
		}
		// An empty folder is replaced by the link. A folder with files is not removed.
		if err := os.Remove(abs); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", notWritable(dir, err)
		}
		if err := os.Symlink(elsewhere, abs); err != nil {
			return "", notWritable(dir, err)
		}
	}

	// An existing folder must belong to cred.
	base := filepath.Dir(elsewhere)
	if info, err := os.Lstat(base); err == nil && !ownedBy(info, cred) {
		return "", notWritable(base, errors.New("it belongs to another user"))
	}
	if _, err := makeDir(base, cred); err != nil {
		return "", err
	}
	return makeDir(elsewhere, cred)
}

func ownedBy(info fs.FileInfo, cred *syscall.Credential) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.IsDir() && stat.Uid == cred.Uid
}

func unreachableDir(abs string) string {
	sum := sha256.Sum256([]byte(abs))
	return filepath.Join(unreachableBase, "afterwrite-"+hex.EncodeToString(sum[:6]), "postgres")
}

// reachable reports whether the modes of dir and of its parents give cred search permission.
func reachable(dir string, cred *syscall.Credential) bool {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false
	}
	for {
		info, err := os.Stat(dir)
		if err != nil || !searchable(info, cred) {
			return false
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return true
		}
		dir = parent
	}
}

func searchable(info fs.FileInfo, cred *syscall.Credential) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	switch mode := info.Mode().Perm(); {
	case stat.Uid == cred.Uid:
		return mode&0o100 != 0
	case stat.Gid == cred.Gid:
		return mode&0o010 != 0
	default:
		return mode&0o001 != 0
	}
}
