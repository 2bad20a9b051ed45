// Package world is what the rigs run in: private Redis and Postgres servers, the built program, and its processes.
//
//	w, err := world.New(ctx, world.Options{Name: "bench"})   // builds the program, and starts the servers
//	defer w.Close()
//	stage, err := w.Stage(ctx, world.StageOptions{Name: "small"})
//	err = stage.Reset(ctx, 100_000)           // so many rows, and nothing in Redis
//	api, err := stage.Start(ctx, "api")
//	...
//	err = stage.Drained(ctx, time.Minute)     // Postgres has everything
//	sum, rows, err := stage.Sum(ctx)
//	err = stage.Save(ctx)                     // and later Restore
//
// A stage knows afterwrite by its commands, its API, its metrics, and the table counters, which two versions have in common: the
// benchmark compares this version with an earlier one. Only Backlog and Clean read the keys of this version.
package world
