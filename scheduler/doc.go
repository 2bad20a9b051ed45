// Package scheduler sends the periodic tasks: a sweep, which finds the dirty keys whose tasks were lost, at every
// boundary of the sweep interval, every hour a purge of old tombstones, and now and then an eviction of idle entries.
//
// Any number of schedulers may run. A task's ID holds the number of its interval, so that all of them together make
// one task for each; the first one wins, and another one is there when it dies. That is why this is a loop of our own and
// not asynq.Scheduler, whose tasks have one ID for ever or a different one each time.
//
// While no worker takes them, it stops sending at about ten: they would only pile up, each to do the same as the next.
//
// A scheduler holds no state. Nothing is lost while none runs: keys stay dirty, and the next sweep finds them.
package scheduler
