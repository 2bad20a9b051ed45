// Package writepath is what the api does between a parsed request and its answer: it applies operations to Redis through the
// batching writer of package cache, reads cold keys from Postgres, and sends hints about keys that have just become dirty.
//
//	service := writepath.Open(writepath.Parts{Cache: c, Store: s, Sender: asynqClient, Enqueuer: ...})
//	defer service.Close()
//	results := service.Do(ctx, operations, writepath.Options{})
//
// It waits for Redis only. The one read of Postgres, for the base of a cold key, is bounded and shared, and skipped
// while the breaker is open; a write then goes on with its base unknown.
//
// A client may wait for more: until Postgres has the write (waiters share one notification), or until it is on replicas or on
// disk (a Barrier of package cache). Other clients do not wait for that.
package writepath
