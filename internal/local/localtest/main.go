package localtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/afterwrite/afterwrite/internal/local"
)

const (
	// serverPatience bounds the start and the stop of a server.
	serverPatience = 60 * time.Second

	dirPattern = "afterwrite-test-*"
	// dataName is the server's folder in a temporary folder. It is short because the path of a socket must be short.
	dataName = "d"
	// staleAfter is far longer than a test binary runs; its default timeout is 10 minutes.
	staleAfter = time.Hour
)

// mainRuns is true if Main will stop the shared servers.
var mainRuns atomic.Bool

// Main runs the tests of a package, stops the shared servers, fails if goroutines are left (opts are for goleak.Find), and ends the
// process. It is the whole body of a TestMain.
func Main(m *testing.M, opts ...goleak.Option) {
	mainRuns.Store(true)
	removeStale()

	code := m.Run()
	if err := stopShared(); err != nil {
		fmt.Fprintf(os.Stderr, "localtest: stop the servers: %v\n", err)
		code = max(code, 1)
	}
	if code == 0 { // failed tests may leave goroutines
		if err := findLeaks(opts); err != nil {
			fmt.Fprintf(os.Stderr, "localtest: %v\n", err)
			code = 1
		}
	}
	os.Exit(code)
}

// leakPatience is how long goroutines may take to end. A go-redis client that cannot connect sleeps for a second before it notices
// that it was closed.
const leakPatience = 3 * time.Second

func findLeaks(opts []goleak.Option) (err error) {
	for begun := time.Now(); time.Since(begun) < leakPatience; {
		if err = goleak.Find(opts...); err == nil { // it retries for less than a second
			return nil
		}
	}
	return err //nolint:wrapcheck // it says what it is
}

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

// cleanups run after the tests of the package.
var cleanups []func() error

// Cleanup registers a function that Main calls after all tests of the package. It is not safe for concurrent use.
func Cleanup(f func() error) { cleanups = append(cleanups, f) }

func stopShared() error {
	ctx, cancel := context.WithTimeout(context.Background(), serverPatience)
	defer cancel()

	var errs []error
	for _, cleanup := range cleanups {
		errs = append(errs, cleanup())
	}
	if s := &sharedRedis; s.server != nil {
		errs = append(errs, s.server.Stop(ctx), local.RemoveDir(s.dir, s.server.Dir()))
	}
	if s := &sharedPostgres; s.server != nil {
		errs = append(errs, s.server.Stop(ctx), local.RemoveDir(s.dir, s.server.Dir()))
	}
	return errors.Join(append(errs, os.RemoveAll(sharedRedis.dir), os.RemoveAll(sharedPostgres.dir))...) // after failed starts
}

func requireMain(t testing.TB) {
	t.Helper()
	if !mainRuns.Load() {
		t.Fatal("localtest: this package needs `func TestMain(m *testing.M) { localtest.Main(m) }`")
	}
}
