// Package process has the parts that all long-running processes of afterwrite share: configuration and log, traces, checks of Redis and
// Postgres at the start, an address with /healthz, /readyz and /metrics, a heartbeat, and a graceful shutdown.
//
//	p, err := process.Start(ctx, process.Environment{...}, plan) // returns when Redis answers and is fit
//	defer p.Close()
//	err = p.Run(ctx, handler, worker.Run)                        // until ctx is done or a part fails
//
// Start reads the environment, checks that the address is free, waits for Redis, converts it or waits for the conversion, and runs the
// checks of `afterwrite doctor`. At shutdown the process stops accepting requests, ends its background work and closes its connections.
//
// Short commands use only Environment.Settings and Connect.
package process
