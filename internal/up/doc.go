// Package up implements `afterwrite up`, which runs all of afterwrite with one command, for trials and development.
//
// It starts a private Redis and a private Postgres unless others are configured, applies the migrations, and starts the api, the
// worker, the scheduler and the dashboard as child processes. When it is told to stop, it stops the api, flushes once more,
// and then stops the other processes and the servers, so that no write is lost. It leaves no processes or locks behind, and the next
// run uses the same data.
package up
