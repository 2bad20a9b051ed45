// Package process is what every long-running process of afterwrite is: configuration and log, traces, checks of Redis and
// Postgres at the start, an address with /healthz, /readyz and /metrics, a heartbeat, and an orderly end.
//
//	p, err := process.Start(ctx, process.Environment{...}, plan) // returns when Redis answers and is fit to be used
//	defer p.Close()
//	err = p.Run(ctx, handler, worker.Run)                        // until ctx is done or one of them fails
//
// Start works in this order: read the environment, check that the address is free, wait for Redis, convert it or wait until it
// is converted, run the checks that `afterwrite doctor` prints. The end comes in this order: stop taking requests, end the
// work in the background, close the connections.
//
// Commands that do one thing and end use a part of it: Environment.Settings and Connect.
package process
