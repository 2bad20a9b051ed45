// Package writepath is what the api does between a parsed request and its answer: it applies operations to Redis
// through the batching writer of package cache, brings cold keys in from Postgres, and hands the keys that have just
// become dirty to the Enqueuer.
//
// It waits for Redis only. The one read of Postgres, for the base of a cold key, is bounded and shared, and skipped
// while the breaker is open; a write then goes on with its base unknown.
//
// A client that wants to know more waits for more: until Postgres has it (waiters, which share one notification), or until it
// is on replicas or on disk (a Barrier of package cache). That never holds up those who do not ask for it.
package writepath
