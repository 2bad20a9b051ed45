// Command direct writes to Postgres before it answers, one prepared statement a request: what most services do.
package main

import (
	"context"

	"github.com/afterwrite/afterwrite/proof/bench/peer/frame"
)

func main() { frame.Exit(run()) }

func run() error {
	postgres, err := frame.OpenPostgres(context.Background())
	if err != nil {
		return err
	}
	defer func() { _ = postgres.Close() }()
	return frame.Serve(func(ctx context.Context, key string, by int64) (frame.Counter, error) {
		value, version, err := postgres.Add(ctx, key, by)
		return frame.Counter{Key: key, Value: value, Version: version, Synced: true}, err
	})
}
