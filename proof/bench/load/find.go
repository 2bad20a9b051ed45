package load

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// ErrNotInstalled means that a tool is missing; the error names its package.
var ErrNotInstalled = errors.New("not installed")

// find returns the path of a program in PATH, or says which of Debian's packages has it.
func find(program, debianPackage string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("%w: %s was not found: install it with `deploy/setup.sh bench`, or the package %s",
			ErrNotInstalled, program, debianPackage)
	}
	return path, nil
}

// pgbenchPlaces are where packages put it, beside postgres; see internal/local/find.go.
var pgbenchPlaces = []string{
	"/usr/lib/postgresql/*/bin/pgbench",
	"/usr/pgsql-*/bin/pgbench",
	"/opt/homebrew/opt/postgresql*/bin/pgbench",
	"/usr/local/opt/postgresql*/bin/pgbench",
}

// findPGBench looks beside the postgres that was named, in PATH, and then in the usual places. Any version will do: what it
// sends is the same.
func findPGBench() (string, error) {
	if dir := os.Getenv("AFTERWRITE_POSTGRES_BIN"); dir != "" {
		if path, err := exec.LookPath(filepath.Join(dir, "pgbench")); err == nil {
			return path, nil
		}
	}
	if path, err := exec.LookPath("pgbench"); err == nil {
		return path, nil
	}
	var found []string
	for _, place := range pgbenchPlaces {
		matches, _ := filepath.Glob(place) // the only error is a malformed pattern
		found = append(found, matches...)
	}
	if len(found) == 0 {
		return find("pgbench", "postgresql")
	}
	return slices.MaxFunc(found, cmp.Compare[string]), nil
}
