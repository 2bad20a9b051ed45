// Package worker is the flush path: an Asynq server whose tasks write dirty counters from Redis to Postgres. docs/glossary.md defines the
// terms.
//
// A drain (Flusher.Drain) seals the open epoch of a shard, reads its keys and their entries, upserts them in statements that never set a
// row back to an older version, and commits the epoch. Keys that are written meanwhile are in the next epoch. So a drain may run twice,
// late, on two workers at once, or end at any point.
//
// If Postgres refuses rows, the batch is halved until the bad rows are alone. The others are committed. Each bad key is set aside, retried
// by a task of its own with growing delays, and becomes a dead letter in the end, in Asynq's archive and in the shard's dead hash. An
// outage does not count as a failed attempt.
//
// A task is sent when a key becomes dirty, and by a sweep. If tasks do not run, because Redis is full or there is no scheduler, each worker
// drains long overdue shards without tasks (selfDrain).
package worker
