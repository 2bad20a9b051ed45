// Package worldtest has what the tests on a world share.
package worldtest

import (
	"context"
	"os"
	"path/filepath"
	"sync"

	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/proof/world"
)

// Program builds afterwrite once for all tests of a package, and returns its path. localtest.Main deletes it.
var Program = sync.OnceValues(func() (string, error) {
	dir, err := local.TempDir("afterwrite-program-")
	if err != nil {
		return "", err
	}
	localtest.Cleanup(func() error { return os.RemoveAll(dir) })
	path := filepath.Join(dir, "afterwrite")
	return path, world.Build(context.Background(), "", path, "github.com/afterwrite/afterwrite")
})
