package local

import (
	"cmp"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// Variables for programs that are not in the usual places.
const (
	envRedisServer = "AFTERWRITE_REDIS_SERVER" // the program
	envPostgresBin = "AFTERWRITE_POSTGRES_BIN" // the folder of postgres and initdb
)

// postgresPlaces are folders in which packages install postgres without adding it to PATH, as on Debian and with Homebrew. If there
// are several versions, the newest is used.
var postgresPlaces = []string{
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/opt/homebrew/opt/postgresql*/bin",
	"/usr/local/opt/postgresql*/bin",
}

// findRedis returns the path of redis-server. It tries the option, the variable, then PATH.
func findRedis(option string) (string, error) {
	name := cmp.Or(option, os.Getenv(envRedisServer), "redis-server")
	path, err := exec.LookPath(name)
	if err != nil {
		return "", problemf(ErrNotInstalled, "%s was not found: install it with `make deps`, or set REDIS_URL", name)
	}
	return path, nil
}

// findPostgres returns the folder of postgres and initdb. It tries the option, the variable, PATH, then postgresPlaces, newest first.
// If major, the version of existing data, is not 0, the version must match.
func findPostgres(ctx context.Context, option string, major int) (string, error) {
	var candidates []string
	if named := cmp.Or(option, os.Getenv(envPostgresBin)); named != "" {
		candidates = []string{named}
	} else {
		candidates = postgresCandidates()
	}

	found := 0
	for _, dir := range candidates {
		if !isProgram(filepath.Join(dir, "postgres")) || !isProgram(filepath.Join(dir, "initdb")) {
			continue
		}
		version := postgresMajor(ctx, dir)
		if major == 0 || version == major {
			return dir, nil
		}
		found = cmp.Or(found, version)
	}

	if found != 0 {
		return "", problemf(ErrVersion,
			"the data is of PostgreSQL %d, but PostgreSQL %d was found: install version %d, or move the data folder away",
			major, found, major)
	}
	return "", problemf(ErrNotInstalled, "postgres was not found: install it with `make deps`, or set DATABASE_URL")
}

// PostgresProgram returns the path of a program that is installed beside postgres, such as pgbench.
func PostgresProgram(ctx context.Context, name string) (string, error) {
	dir, err := findPostgres(ctx, "", 0)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	if !isProgram(path) {
		return "", problemf(ErrNotInstalled, "%s was not found in %s", name, dir)
	}
	return path, nil
}

func postgresCandidates() []string {
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		// Follow the link: initdb is in the folder of the real file, and postgres finds its own files relative to it.
		if resolved, err := filepath.EvalSymlinks(path); err == nil {
			path = resolved
		}
		dirs = append(dirs, filepath.Dir(path))
	}
	for _, place := range postgresPlaces {
		matches, _ := filepath.Glob(place) // the only error is a malformed pattern
		slices.SortFunc(matches, func(a, b string) int { return cmp.Compare(lastNumber(b), lastNumber(a)) })
		dirs = append(dirs, matches...)
	}
	return dirs
}

var number = regexp.MustCompile(`[0-9]+`)

// lastNumber returns the last number in a path: text order would put /usr/lib/postgresql/9/bin after /usr/lib/postgresql/15/bin.
func lastNumber(path string) int {
	all := number.FindAllString(path, -1)
	if len(all) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(all[len(all)-1])
	return n
}

// postgresMajor returns the major version from `postgres --version` ("postgres (PostgreSQL) 15.18 ..."), or 0 if that fails.
func postgresMajor(ctx context.Context, dir string) int {
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(number.FindString(string(out)))
	return n
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
