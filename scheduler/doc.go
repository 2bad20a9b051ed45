// Package scheduler sends the periodic tasks: at each boundary of the sweep interval a sweep, which finds dirty shards whose tasks were
// lost, every hour a purge of old tombstones, and less often an eviction of idle entries.
//
// Any number of schedulers may run. The ID of a task contains the number of its interval, so all schedulers together send one task for each
// interval, and one scheduler is enough. This is not an asynq.Scheduler because the tasks of that have either one ID for ever or a
// different ID each time.
//
// It stops sending at about ten waiting tasks: without a worker they would pile up, and each would do the same as the next.
//
// A scheduler has no state. Nothing is lost while none runs: keys stay dirty, and the next sweep finds them.
package scheduler
