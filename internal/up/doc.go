// Package up is `afterwrite up`: the whole of afterwrite from one command, for trying it out and for development.
//
// It starts a private Redis and a private Postgres where no others are given, brings the schema up to date, and runs the
// api, the worker, the scheduler and the dashboard as the processes that they are in production, each a child of its own.
// Told to stop, it stops them in the order in which nothing is lost: first the api, then a last flush, then the others,
// then the servers. It leaves no process and no lock behind, and the next run finds the data again.
package up
