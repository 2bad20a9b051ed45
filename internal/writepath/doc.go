// Package writepath is what the api does between a parsed request and its answer: it applies operations to Redis
// through the batching writer of package cache, brings cold keys in from Postgres, and hands the keys that have just
// become dirty to the Enqueuer.
//
// It waits for Redis only. The one read of Postgres, for the base of a cold key, is bounded and shared, and skipped
// while the breaker is open; a write then goes on with its base unknown.
package writepath
