// Package world is what the benchmark runs in: private Redis and Postgres servers, the processes of the built programs, and the
// state that they begin a measurement with.
//
//	w, err := world.New(ctx, previous)        // builds both versions, and starts the servers
//	stage, err := w.Stage(ctx, world.StageOptions{Name: "small"})
//	err = stage.Reset(ctx, 100_000)           // so many rows, and nothing in Redis
//	api, err := stage.Start(ctx, "api")
//	...
//	err = stage.Drained(ctx, time.Minute)     // Postgres has everything
//	sum, rows, err := stage.Sum(ctx)
//	err = stage.Save(ctx)                     // and later Restore
//
// It knows afterwrite by its commands, its API, its metrics, and the table counters, which two versions have in common. How a
// version keeps its counters in Redis is its own affair.
//
// Redis keeps an append-only file with everysec, as README asks for. Postgres is as its package configures it, fsync
// included. Redis is reached by a unix socket and Postgres by TCP, by all systems alike.
package world
