// Package up implements `afterwrite up`, which runs all of afterwrite with one command, for trials and development.
//
// It starts a private Redis and a private Postgres unless others are configured, applies the migrations, and starts the api, the
// worker, the scheduler and the dashboard as child processes. When it is told to stop, it stops them in an order that loses
// nothing: the api, a last flush, the other processes, the servers. No process and no lock remains, and the next run uses the
// same data.
package up
