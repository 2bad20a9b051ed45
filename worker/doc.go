// Package worker is the flush path: an Asynq server whose tasks bring dirty counters from Redis to Postgres.
//
// A drain (Flusher.Drain) seals the open epoch of a shard, reads its keys and their entries, upserts them in statements that never
// let a row go back to an older version, and commits the epoch. Keys that were written meanwhile are in the next epoch. So a drain may
// run twice, late, on two workers at once, or end at any point.
//
// What Postgres refuses is found by halving the batch until the bad rows are alone: the others are committed, each bad
// key is tried again by a task of its own with growing delays, and in the end becomes a dead letter, in Asynq's archive
// and in the shard's dead hash. An outage is nobody's failure: its tasks are retried without counting.
//
// What brings a key here is a task, sent when it became dirty, or by a sweep. Where tasks do not run, in a Redis that is full
// or without any scheduler, each worker looks after keys that are long overdue itself (selfDrain).
package worker
