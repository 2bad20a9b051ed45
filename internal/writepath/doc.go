// Package writepath carries out the operations of parsed requests: it applies them to Redis through the batching writer of package cache,
// hydrates cold keys from Postgres, and sends hints about keys that have just become dirty.
//
//	service := writepath.Open(writepath.Parts{Cache: c, Store: s, Sender: asynqClient, Enqueuer: ...})
//	defer service.Close()
//	results := service.Do(ctx, operations, writepath.Options{})
//
// A write waits for Redis only. The one read of Postgres, for the base of a cold key, is bounded and shared. While the breaker is open it
// is skipped, and the write is blind.
//
// A client may wait for more: until Postgres has the write (waiters share one notification), or until it is on replicas or on
// disk (a durable Writer of package cache). Other clients do not wait for that.
package writepath
