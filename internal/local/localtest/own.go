package localtest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/afterwrite/afterwrite/internal/local"
)

// server is a Redis or a Postgres.
type server interface {
	Stop(ctx context.Context) error
	LastLog() string
	Dir() string
}

// startOwn starts a server for one test, and stops it when the test ends. *dir is its data folder; if it is "", startOwn sets it to a
// temporary folder.
func startOwn[S server](t testing.TB, dir *string, start func(context.Context) (S, error)) S {
	t.Helper()
	temporary := ""
	if *dir == "" {
		var err error
		if temporary, err = local.TempDir(dirPattern); err != nil {
			t.Fatalf("localtest: %v", err)
		}
		*dir = filepath.Join(temporary, dataName)
	}

	s, err := within(start)
	if err != nil {
		_ = os.RemoveAll(temporary)
		t.Fatalf("localtest: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("localtest: the last lines of the server's log:\n%s", s.LastLog())
		}
		ctx, cancel := context.WithTimeout(context.Background(), serverPatience)
		defer cancel()
		err := s.Stop(ctx) // no error if the test has stopped it
		if temporary != "" {
			err = errors.Join(err, local.RemoveDir(temporary, s.Dir()))
		}
		if err != nil {
			t.Errorf("localtest: stop the server: %v", err)
		}
	})
	return s
}

// within calls start with a timeout of serverPatience.
func within[S any](start func(context.Context) (S, error)) (S, error) {
	ctx, cancel := context.WithTimeout(context.Background(), serverPatience)
	defer cancel()
	return start(ctx)
}
