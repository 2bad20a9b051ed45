// Package worker is the flush path: an Asynq server whose tasks write dirty counters from Redis to Postgres. docs/glossary.md defines the
// terms.
//
// A drain (Flusher.Drain) seals the open epoch of a shard, reads its keys and their entries, upserts them in statements that never set a
// row back to an older version, and commits the epoch. Keys that are written meanwhile join the next epoch. Therefore a drain may run
// twice or late, overlap with one of another worker, or end at any point.
//
// If Postgres refuses rows, the worker halves the batch until the bad rows are alone, and commits the others. It sets each bad key aside
// and retries it in a separate task, with growing delays. After the last attempt the key is a dead letter: the task is in Asynq's archive,
// and the key in the shard's dead hash. An outage does not count as a failed attempt.
//
// The api sends a task when a key becomes dirty, and a sweep sends one for each overdue shard. If tasks do not run, because Redis is full
// or there is no scheduler, each worker drains long overdue shards without tasks (selfDrain).
package worker
