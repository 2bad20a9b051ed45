// Package worker is the flush path: an Asynq server whose tasks bring dirty counters from Redis to Postgres.
//
// A flush (Flusher) peeks at dirty entries, upserts them in one statement that never lets a row go back to an older
// version, and acks them: the dirty mark is cleared only where the version is still the one that was committed. So it may
// be run twice, late, on two workers at once, or end at any point.
//
// What Postgres refuses is found by halving the batch until the bad rows are alone: the others are committed, each bad
// key is tried again by a task of its own with growing delays, and in the end becomes a dead letter, in Asynq's archive
// and in the shard's dead hash. An outage is nobody's failure: its tasks are retried without counting.
//
// What brings a key here is a task, sent when it became dirty, or by a sweep. Where tasks do not run, in a Redis that is full
// or without any scheduler, each worker looks after keys that are long overdue itself (selfDrain).
package worker
