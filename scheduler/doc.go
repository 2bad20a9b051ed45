// Package scheduler sends the periodic tasks. At each boundary of the sweep interval it sends a sweep, which finds dirty shards whose
// tasks were lost. Every hour it sends a purge of old tombstones, and every minute to every hour an eviction of idle entries.
//
// Any number of schedulers may run. The ID of a task contains the number of its interval, so all schedulers together send one task for each
// interval, and one scheduler is enough. An asynq.Scheduler cannot do this: its tasks have either one ID for ever or a new ID each time.
//
// It stops sending at about ten waiting tasks. Without a worker they would pile up, and each would repeat the same work.
//
// A scheduler has no state. Nothing is lost while none runs: keys stay dirty, and the next sweep finds them.
package scheduler
