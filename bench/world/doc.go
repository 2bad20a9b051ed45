// Package world is what the benchmark runs in: a private Redis and a private Postgres, the processes of the built program,
// and the state that both begin a measurement with.
//
//	w, err := world.New(ctx)                  // builds, and starts the servers
//	stage, err := w.Stage(ctx, "small", 0)    // a database of each, migrated
//	err = stage.Reset(ctx, 100_000)           // so many rows, and nothing in Redis
//	err = stage.Warm(ctx, 100_000)            // and now the same in Redis
//	api, err := stage.Start(ctx, "api")
//	...
//	err = stage.Drained(ctx, time.Minute)     // Postgres has everything
//	sum, err := stage.Sum(ctx)
//
// Redis keeps an append-only file with everysec, as README asks for. Postgres is as its package configures it, fsync
// included. Redis is reached by a unix socket and Postgres by TCP, by all systems alike.
package world
